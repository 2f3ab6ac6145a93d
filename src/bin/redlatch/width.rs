//! How wide text for people may be.

use console::{Term, measure_text_width};

/// Columns of the terminal; where stdout is none nothing is ever shortened or wrapped.
pub fn columns() -> usize {
    let terminal = Term::stdout();
    if !terminal.is_term() {
        return usize::MAX;
    }
    terminal.size_checked().map_or(80, |(_, columns)| usize::from(columns))
}

/// Narrower, and lines would be of single words.
const NARROWEST: usize = 24;

/// `text` in lines of at most `columns`, but for words that are longer.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(NARROWEST);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_words() {
        assert_eq!(wrapped("one two three four five six seven", 24), ["one two three four five", "six seven"]);
        assert_eq!(wrapped(&"x".repeat(30), 24), ["x".repeat(30)]);
        assert_eq!(wrapped(&format!("a {}", "x".repeat(30)), 24), ["a".to_owned(), "x".repeat(30)]);
        assert_eq!(wrapped("all of it", usize::MAX), ["all of it"]);
        assert_eq!(wrapped("", 24), [""]);
    }
}
