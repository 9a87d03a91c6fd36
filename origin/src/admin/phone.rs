//! Telephone numbers as people write them.

/// The digits of a number: ten of North America, or up to sixteen with their country's code. Fails with
/// what is wrong with it.
pub fn phone(text: &str) -> Result<String, String> {
    let separators = [' ', '-', '.', '(', ')', '/', '\u{a0}'];
    let bare = text.trim();
    let digits: String =
        bare.trim_start_matches('+').chars().filter(|c| !separators.contains(c)).collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no telephone number"));
    }
    let national = digits.strip_prefix('1').filter(|rest| rest.len() == 10);
    let number = national.unwrap_or(&digits);
    match number.len() {
        10..=16 => Ok(number.to_owned()),
        length => Err(format!("{text:?} has {length} digits; a number has 10 to 16")),
    }
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
    }
}
