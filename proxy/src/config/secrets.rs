//! Where secrets come from: the environment or a file, never the configuration itself.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

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
        Some(("file", path)) => {
            only_for_few(Path::new(path))?;
            std::fs::read_to_string(path)
                .map_err(|error| format!("the secret cannot be read from {path}: {error}"))?
                .trim_end_matches(['\r', '\n'])
                .to_owned()
        }
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

/// Refuses a file with a secret in it that everybody on the machine may read.
pub fn only_for_few(path: &Path) -> Result<(), String> {
    let place = path.display();
    let file = std::fs::metadata(path)
        .map_err(|error| format!("the secret cannot be read from {place}: {error}"))?;
    match file.permissions().mode() & 0o007 {
        0 => Ok(()),
        _ => Err(format!("everybody may read or change the secret in {place}: chmod o= {place}")),
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
    fn a_secret_that_everybody_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush").unwrap();
        let reference = format!("file:{}", file.path().display());
        let environment = BTreeMap::new();
        for (mode, fine) in [(0o600, true), (0o440, true), (0o644, false), (0o602, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let secret = resolve(&reference, &environment);
            assert_eq!(secret.is_ok(), fine, "{mode:o}");
            let said = secret.map(|_| String::new()).unwrap_or_else(|why| why);
            assert!(fine || said.contains("chmod o="), "{said}");
            assert!(!said.contains("hush"));
        }
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
