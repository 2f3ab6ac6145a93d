//! How wide text for people may be. Nothing else asks for it.

use console::{Term, measure_text_width, truncate_str};

/// Columns of the terminal that stdout is; whoever reads what is no terminal gets everything in full, on one line.
pub fn columns() -> Option<usize> {
    columns_of(&Term::stdout())
}

/// The same for another stream than stdout.
pub fn columns_of(terminal: &Term) -> Option<usize> {
    terminal.is_term().then(|| match terminal.size_checked() {
        Some((_, columns @ 1..)) => usize::from(columns),
        // A terminal that does not say.
        Some((_, 0)) | None => 80,
    })
}

/// Narrower, and lines would be of single words.
const NARROWEST: usize = 24;
/// By how much a line goes in that goes on.
const INDENT: usize = 2;

/// `text` in lines of at most `columns`; a word that is longer goes on in the next line.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.extend(pieces(word, columns)),
        }
    }
    lines
}

/// Parts of a word that are not wider than `columns`.
fn pieces(word: &str, columns: usize) -> Vec<String> {
    // Colours are of short words.
    if measure_text_width(word) <= columns || word.contains('\u{1b}') {
        return vec![word.to_owned()];
    }
    let mut pieces = vec![String::new()];
    for character in word.chars() {
        let last = pieces.last_mut().expect("there is one");
        if measure_text_width(last) + measure_text_width(character.encode_utf8(&mut [0; 4])) > columns.max(1) {
            pieces.push(character.to_string());
        } else {
            last.push(character);
        }
    }
    pieces
}

/// Lines that fit the terminal. What stands after a gap goes on under itself.
pub fn folded(text: &str) -> String {
    columns().map_or_else(|| text.to_owned(), |columns| folded_to(text, columns))
}

/// The same for so many columns.
pub fn folded_to(text: &str, columns: usize) -> String {
    let fold = |line: &str| {
        if measure_text_width(line) <= columns {
            return format!("{line}\n");
        }
        let under = |gap: usize| gap + line[gap..].len() - line[gap..].trim_start().len();
        let start = line.len() - line.trim_start().len();
        let gap = line[start..].find("  ").map(|gap| under(start + gap)).filter(|gap| gap + NARROWEST <= columns);
        // What stands before the gap has no wide characters: it is ours.
        let (head, body) = line.split_at(gap.unwrap_or(0));
        let indent = gap.unwrap_or(start + INDENT);
        let lines = wrapped(body, columns.saturating_sub(indent));
        let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
        format!("{head}{}\n", lines.join(&format!("\n{}", " ".repeat(indent))))
    };
    text.lines().map(fold).collect()
}

/// `text` in at most `columns`, without its middle if need be: beginning and end tell names apart.
pub fn shortened(text: &str, columns: usize) -> String {
    if measure_text_width(text) <= columns {
        return text.to_owned();
    }
    if text.contains('\u{1b}') {
        return truncate_str(text, columns, "…").into_owned();
    }
    let fitting = |characters: &mut dyn Iterator<Item = char>, most: usize| {
        let mut width = 0;
        let fits = characters.take_while(|character| {
            width += measure_text_width(character.encode_utf8(&mut [0; 4]));
            width <= most
        });
        fits.collect::<Vec<_>>()
    };
    let rest = columns.saturating_sub(1);
    let end = fitting(&mut text.chars().rev(), rest / 2);
    let beginning = fitting(&mut text.chars(), rest - rest / 2);
    beginning.into_iter().chain(['…']).chain(end.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_words_and_words_that_are_too_long_anywhere() {
        assert_eq!(wrapped("one two three four five six seven", 24), ["one two three four five", "six seven"]);
        assert_eq!(wrapped(&format!("a {}", "x".repeat(30)), 24), ["a".to_owned(), "x".repeat(24), "x".repeat(6)]);
        assert_eq!(wrapped("all of it", usize::MAX), ["all of it"]);
        assert_eq!(wrapped("", 24), [""]);
    }

    #[test]
    fn what_stands_after_a_gap_goes_on_under_itself() {
        let line = format!("name  {}\nshort\n", "word ".repeat(8).trim_end());
        let folded = "name  word word word word word word\n      word word\nshort\n";
        assert_eq!(folded_to(&line, 36), folded);
        assert_eq!(folded_to("no gap in this line at all, is there", 24), "no gap in this line at\n  all, is there\n");
    }

    #[test]
    fn names_lose_their_middle() {
        assert_eq!(shortened("tenant-1/orders/42", 18), "tenant-1/orders/42");
        assert_eq!(shortened("tenant-1/orders/42", 11), "tenan…rs/42");
        assert_eq!(shortened("日本語日本語日本語", 8), "日本…語");
    }
}
