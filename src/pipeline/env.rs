//! `${NAME}` in the strings of a pipeline file.
//!
//! Substitution works on parsed strings, not on the file's text: whatever a variable holds, it can't change the
//! file's structure.

use std::ffi::OsString;

/// Where variables come from: the environment, or a test's own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A reference that can't be resolved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which `$` of the string it is, counted from 0. (The file may spell other characters with escapes, so an
    /// offset into the string is none into the file.)
    pub dollar: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A string with its references resolved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Substituted {
    /// The text.
    pub text: String,
    /// Whether there was any reference in it.
    pub referred: bool,
}

/// Resolves `${NAME}` and `${NAME:-default}` (taken where the variable is unset or empty) and turns `$$` into `$`.
/// Any other `$` stands for itself.
pub(crate) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<Substituted, Vec<Fault>> {
    let mut done = Substituted { text: String::with_capacity(text.len()), referred: false };
    let mut faults = Vec::new();
    let mut dollar = 0;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.text.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            done.text.push('$');
            dollar += 2;
            rest = after;
        } else if let Some(after) = tail.strip_prefix('{') {
            let Some((reference, after)) = after.split_once('}') else {
                faults.push(Fault {
                    dollar,
                    message: "\"${\" without a closing \"}\"".to_owned(),
                    hint: "write ${NAME}, or $$ for a plain $".to_owned(),
                });
                return Err(faults);
            };
            match resolve(reference, lookup) {
                Ok(value) => done.text.push_str(&value),
                Err((message, hint)) => faults.push(Fault { dollar, message, hint }),
            }
            done.referred = true;
            dollar += 1 + reference.matches('$').count();
            rest = after;
        } else {
            done.text.push('$');
            dollar += 1;
            rest = tail;
        }
    }
    done.text.push_str(rest);
    if faults.is_empty() { Ok(done) } else { Err(faults) }
}

/// Whether there is a reference in `text`, well-formed or not.
pub(super) fn refers(text: &str) -> bool {
    text.replace("$$", "").contains("${")
}

/// Whether `text` is one reference and nothing else: it says where a secret is, and not what it is.
pub(super) fn is_reference(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

fn resolve(reference: &str, lookup: Lookup<'_>) -> Result<String, (String, String)> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let well_formed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if !well_formed {
        return Err((
            format!("\"{name}\" can't be the name of an environment variable"),
            "write ${NAME} with letters, digits and _, or $$ for a plain $".to_owned(),
        ));
    }
    let value = lookup(name).map(OsString::into_string).transpose().map_err(|_| {
        (format!("environment variable {name} is not valid UTF-8"), format!("set {name} to UTF-8 text"))
    })?;
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err((
            format!("environment variable {name} is not set"),
            format!("set it, or give a default: ${{{name}:-value}}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        match name {
            "HOST" => Some("db.example".into()),
            "EMPTY" => Some("".into()),
            "CUNNING" => Some("${HOST}$$".into()),
            #[cfg(unix)]
            "BYTES" => Some(std::os::unix::ffi::OsStringExt::from_vec(vec![0xff])),
            _ => None,
        }
    }

    fn text(text: &str) -> String {
        substitute(text, &environment).unwrap().text
    }

    #[test]
    fn references_are_replaced_and_defaults_fill_in() {
        assert_eq!(text("http://${HOST}:19530"), "http://db.example:19530");
        assert_eq!(text("${HOST}${HOST}"), "db.exampledb.example");
        assert_eq!(text("${PORT:-19530}"), "19530");
        assert_eq!(text("${PORT:-}"), "");
        assert_eq!(text("${EMPTY:-full}"), "full");
        assert_eq!(text("${EMPTY}"), "");
        assert_eq!(text("${URL:-http://a:-1}"), "http://a:-1");
    }

    #[test]
    fn a_dollar_can_stand_for_itself() {
        assert_eq!(text("pa$$word"), "pa$word");
        assert_eq!(text("pa$word"), "pa$word");
        assert_eq!(text("$${HOST}"), "${HOST}");
        assert_eq!(text("$"), "$");
        assert!(!substitute("$${HOST}", &environment).unwrap().referred);
    }

    #[test]
    fn references_are_told_from_what_only_looks_like_them() {
        assert!(refers("a${B}") && refers("${") && refers("$$${B}"));
        assert!(!refers("$$") && !refers("$a") && !refers("$${B}"));
        assert!(is_reference("${TARGET_TOKEN}"));
        for text in ["", "secret", "${}", "${A:-secret}", "a${B}", "${A}${B}", "$${A}"] {
            assert!(!is_reference(text), "{text}");
        }
    }

    #[test]
    fn values_are_not_substituted_again() {
        assert_eq!(text("${CUNNING}"), "${HOST}$$");
    }

    #[test]
    fn every_unset_variable_is_named_with_its_place() {
        let faults = substitute("é $$ ${A} ${HOST} ${B}", &environment).unwrap_err();
        let found: Vec<_> = faults.iter().map(|fault| (fault.dollar, fault.message.as_str())).collect();
        assert_eq!(
            found,
            [(2, "environment variable A is not set"), (4, "environment variable B is not set")]
        );
        assert_eq!(faults[0].hint, "set it, or give a default: ${A:-value}");
    }

    #[test]
    fn malformed_references_are_errors() {
        assert_eq!(
            substitute("x${HOST", &environment).unwrap_err()[0].message,
            "\"${\" without a closing \"}\""
        );
        for reference in ["${}", "${1A}", "${A B}", "${A-x}"] {
            let fault = &substitute(reference, &environment).unwrap_err()[0];
            assert!(fault.message.contains("can't be the name"), "{reference}: {}", fault.message);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_no_text_is_an_error() {
        let fault = &substitute("${BYTES}", &environment).unwrap_err()[0];
        assert_eq!(fault.message, "environment variable BYTES is not valid UTF-8");
    }
}
