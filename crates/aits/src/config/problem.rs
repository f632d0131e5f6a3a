//! An error of the configuration as people need it: where, what, the line, a caret, the word that was meant.

use std::ops::Range;

/// Largest number of wrong letters for which a word is still taken to be a misspelling of another one.
const TYPO_MAX: usize = 2;

/// The message of an error in `text`, the contents of the file `name`.
pub(super) fn shown(error: &toml::de::Error, text: &str, name: &str) -> String {
    let what = error.message().lines().collect::<Vec<_>>().join("; ");
    match error.span() {
        Some(span) => at(&what, span, text, name),
        None => format!("{name}: {what}"),
    }
}

/// The message that something is wrong at these bytes of `text`.
pub(super) fn at(what: &str, span: Range<usize>, text: &str, name: &str) -> String {
    let start = span.start.min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let number = text[..start].matches('\n').count() + 1;
    let before = text[line_start..start].chars().count();
    let width =
        text.get(start..span.end.min(line_start + line.len())).map_or(1, |part| part.chars().count().max(1));
    let gutter = " ".repeat(number.to_string().len());
    let hint = meant(what).map(|word| format!(" did you mean `{word}`?")).unwrap_or_default();
    format!(
        "{name}:{number}:{column}: {what}\n{gutter} |\n{number} | {line}\n{gutter} | {blank}{carets}{hint}",
        column = before + 1,
        blank = " ".repeat(before),
        carets = "^".repeat(width),
    )
}

/// From ``unknown field `a`, expected `b` or `c` ``: the expected word that is close to the unknown one.
fn meant(what: &str) -> Option<&str> {
    let mut words = what.strip_prefix("unknown ")?.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    let near = words.map(|word| (distance(unknown, word), word)).min()?;
    (near.0 <= TYPO_MAX).then_some(near.1)
}

/// Levenshtein's distance: letters to insert, delete or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        assert_eq!(distance("sise", "size"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(meant("unknown field `wrokers`, expected `workers`"), Some("workers"));
        assert_eq!(meant("unknown field `banana`, expected `size` or `max_block`"), None);
        assert_eq!(meant("invalid type: integer `3`"), None);
    }
}
