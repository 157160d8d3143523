//! What is wrong in a pipeline file, and where: collected, then told in one error.

use std::path::Path;

use crate::error::{Error, Kind, Part};

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// The byte of the file where it is, if it is at one place.
    pub at: Option<usize>,
    /// The key that it is about, with the tables around it.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Where a definition was read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'o> {
    /// A file, with its text.
    File(&'o Path, &'o str),
    /// Something without lines: only keys name places in it.
    Values,
}

/// All problems as one error, in the order of the file; `None` if there are none.
pub(super) fn into_error(origin: Origin<'_>, mut problems: Vec<Problem>) -> Option<Error> {
    // What has no place of its own goes last.
    problems.sort_by_key(|problem| problem.at.unwrap_or(usize::MAX));
    let parts = problems.iter().map(|Problem { key, message, hint, .. }| Part {
        key: key.clone(),
        message: message.clone(),
        hint: hint.clone(),
    });
    let parts = parts.collect();
    let mut message = String::new();
    let mut last_hint = None;
    for problem in problems {
        if !message.is_empty() {
            push_hint(&mut message, last_hint.take());
            message.push('\n');
        }
        message.push_str(&place(origin, problem.at));
        message.push_str(&problem.message);
        last_hint = problem.hint;
    }
    if message.is_empty() {
        return None;
    }
    // The error prints its own hint in the same shape below the message: with one problem or many, it reads alike.
    let error = Error::new(Kind::PipelineFile, message).with_parts(parts);
    Some(match last_hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

fn push_hint(message: &mut String, hint: Option<String>) {
    if let Some(hint) = hint {
        message.push_str("\n  hint: ");
        message.push_str(&hint);
    }
}

/// `file:line:column: `, both counted from 1, columns in characters.
fn place(origin: Origin<'_>, at: Option<usize>) -> String {
    let Origin::File(origin, text) = origin else { return String::new() };
    let Some(before) = at.and_then(|at| text.get(..at)) else {
        return format!("{}: ", origin.display());
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}: ", origin.display())
}

/// `a, b or c`.
pub(super) fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(at: Option<usize>, message: &str, hint: Option<&str>) -> Problem {
        Problem { at, key: Some("a".to_owned()), message: message.to_owned(), hint: hint.map(str::to_owned) }
    }

    #[test]
    fn problems_are_told_in_the_order_of_the_file_each_with_its_hint() {
        let text = "a = 1\r\né = 2\n";
        let error = into_error(
            Origin::File(Path::new("p.toml"), text),
            vec![
                problem(None, "third", None),
                problem(text.find("= 2"), "second", Some("do b")),
                problem(Some(0), "first", Some("do a")),
            ],
        );
        let error = error.unwrap();
        assert_eq!(
            error.report(),
            "p.toml:1:1: first\n  hint: do a\np.toml:2:3: second\n  hint: do b\np.toml: third"
        );
        assert_eq!(error.kind(), Kind::PipelineFile);
        assert_eq!(error.hint_text(), None);
    }

    #[test]
    fn the_hint_of_a_single_problem_is_the_errors_own() {
        let error =
            into_error(Origin::File(Path::new("p.toml"), "x"), vec![problem(Some(0), "bad", Some("do"))])
                .unwrap();
        assert_eq!((error.message(), error.hint_text()), ("p.toml:1:1: bad", Some("do")));
        assert_eq!(error.report(), "p.toml:1:1: bad\n  hint: do");
    }

    #[test]
    fn without_lines_the_keys_tell_the_places() {
        let problems = vec![problem(Some(9), "bad", Some("do")), problem(None, "worse", None)];
        let error = into_error(Origin::Values, problems).unwrap();
        assert_eq!(error.report(), "bad\n  hint: do\nworse");
        assert_eq!(error.parts()[1], Part { key: Some("a".into()), message: "worse".into(), hint: None });
    }

    #[test]
    fn no_problem_is_no_error() {
        assert!(into_error(Origin::Values, Vec::new()).is_none());
    }

    #[test]
    fn words_are_joined_for_a_sentence() {
        assert_eq!(either(&["a"]), "a");
        assert_eq!(either(&["a", "b"]), "a or b");
        assert_eq!(either(&["a", "b", "c"]), "a, b or c");
    }
}
