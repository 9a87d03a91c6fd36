//! Telephone numbers as people write them.

/// The digits of a number: ten of North America, or eleven to fifteen that begin with another country's
/// code, for which the number has to be written with a plus. Fails with what is wrong with it.
pub fn phone(text: &str) -> Result<String, String> {
    let separators = [' ', '-', '.', '(', ')', '/', '\u{a0}'];
    let bare = text.trim();
    let (international, bare) = match bare.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, bare),
    };
    let digits: String = bare.chars().filter(|c| !separators.contains(c)).collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no telephone number"));
    }
    let american = match (international, digits.strip_prefix('1')) {
        (_, Some(rest)) if rest.len() == 10 => rest,
        (false, _) if digits.len() == 10 => digits.as_str(),
        (true, _) if (11..=15).contains(&digits.len()) => return Ok(digits),
        // Ten digits are North American wherever they are read again.
        (true, _) if digits.len() == 10 => {
            return Err(format!(
                "{text:?}: numbers of ten digits with a country's code are not known"
            ));
        }
        (false, _) if digits.len() > 10 => {
            return Err(format!(
                "{text:?} has {} digits: a number of ten, or one with + and the country's code",
                digits.len()
            ));
        }
        _ => {
            return Err(format!("{text:?} has {} digits; a number has 10 to 15", digits.len()));
        }
    };
    // Neither an area code nor an exchange begins otherwise (nationalnanpa.com).
    if american.starts_with(['0', '1']) {
        return Err(format!("{text:?} is no North American number: none begins like that"));
    }
    Ok(american.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for text in ["(500) 555-0101", "+1 500 555 0101", "1-500-555-0101", "500.555.0101"] {
            assert_eq!(phone(text).unwrap(), "5005550101");
        }
        assert_eq!(phone("+44 7700 900123").unwrap(), "447700900123");
        for text in ["", "5550101", "five", "+", "12345678901234567", "500555010x"] {
            assert!(phone(text).is_err(), "{text}");
        }
        // Somebody else's number would come of it: a spreadsheet's decimal, a national number of another
        // country, a foreign one that looks like one of ten digits.
        for text in ["5005550101.0", "0441234567", "+47 22 12 34 56", "447700900123"] {
            assert!(phone(text).is_err(), "{text}");
        }
    }
}
