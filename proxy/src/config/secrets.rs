//! Where secrets come from: the environment or a file, never the configuration itself.

use std::collections::BTreeMap;

use secrecy::SecretString;

/// Resolves `env:NAME` or `file:PATH`. The error says what to do and never holds the secret.
pub(super) fn resolve(
    reference: &str,
    environment: &BTreeMap<String, String>,
) -> Result<SecretString, String> {
    let secret = match reference.split_once(':') {
        Some(("env", name)) => match environment.get(name) {
            Some(value) => value.clone(),
            None => {
                return Err(format!("the secret is missing: set the environment variable {name}"));
            }
        },
        Some(("file", path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("the secret cannot be read from {path}: {error}"))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        _ => {
            return Err("a secret is written as \"env:NAME\" or \"file:PATH\", never itself".into());
        }
    };
    if secret.is_empty() {
        Err(format!("the secret {reference} is empty"))
    } else {
        Ok(secret.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn secrets_come_from_the_environment_or_a_file() {
        let environment = BTreeMap::from([("TOKEN".to_owned(), "hush".to_owned())]);
        assert_eq!(resolve("env:TOKEN", &environment).unwrap().expose_secret(), "hush");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush\n").unwrap();
        let reference = format!("file:{}", file.path().display());
        assert_eq!(resolve(&reference, &environment).unwrap().expose_secret(), "hush");
    }

    #[test]
    fn faults_say_what_to_do_and_hold_no_secret() {
        let environment = BTreeMap::new();
        for (reference, expect) in [
            ("env:TOKEN", "the secret is missing: set the environment variable TOKEN"),
            ("hush", "a secret is written as \"env:NAME\" or \"file:PATH\", never itself"),
        ] {
            assert_eq!(resolve(reference, &environment).unwrap_err(), expect);
        }
    }
}
