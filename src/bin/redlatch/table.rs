//! Tables for people: without lines, so that `grep`, `awk` and eyes can read them, and as wide as the terminal.

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};

/// Between two columns.
const GAP: usize = 2;
/// Columns of a terminal that is too narrow are shortened, down to this width.
const LEAST: usize = 6;
/// The last column, when it is made of sentences, goes on in the next line, down to this width.
const LEAST_SENTENCE: usize = 24;

/// A table. Where stdout is no terminal, whoever reads gets all of every cell.
pub fn table<H: AsRef<str>, R: AsRef<[String]>>(head: &[H], rows: &[R]) -> String {
    fitted(head, rows, width())
}

/// The width of the terminal that stdout is.
pub fn width() -> Option<usize> {
    Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)).filter(|columns| *columns > 0)
}

fn fitted<H: AsRef<str>, R: AsRef<[String]>>(head: &[H], rows: &[R], limit: Option<usize>) -> String {
    let head: Vec<_> = head.iter().map(|word| word.as_ref().to_owned()).collect();
    let rows: Vec<_> = std::iter::once(head.as_slice()).chain(rows.iter().map(AsRef::as_ref)).collect();
    let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
    let widest = |column| rows.iter().map(|row| measure_text_width(&cell(row, column))).max().unwrap_or(0);
    let mut widths: Vec<_> = (0..head.len()).map(widest).collect();
    let last = head.len().saturating_sub(1);
    let sentences = rows.iter().any(|row| cell(row, last).contains(' '));
    if let Some(limit) = limit {
        fit(&mut widths, limit, sentences);
    }
    let mut text = String::new();
    for row in rows {
        let mut rest =
            if sentences { lines(&cell(row, last), widths[last]) } else { vec![cell(row, last)] }.into_iter();
        let line = |cells: &dyn Fn(usize) -> String| {
            let cells = widths.iter().enumerate().map(|(column, width)| {
                let cell = cells(column);
                let cell = truncate_str(&cell, *width, "…");
                pad_str(&cell, *width, Alignment::Left, None).into_owned()
            });
            format!("{}\n", cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end())
        };
        let first = rest.next().unwrap_or_default();
        text += &line(&|column| if column == last { first.clone() } else { cell(row, column) });
        for more in rest {
            text += &line(&|column| if column == last { more.clone() } else { String::new() });
        }
    }
    text
}

/// Makes columns narrower, the widest first, until all fit into `limit`.
fn fit(widths: &mut [usize], limit: usize, sentences: bool) {
    let over =
        |widths: &[usize]| (widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)).saturating_sub(limit);
    if let Some(last) = widths.len().checked_sub(1).filter(|_| sentences) {
        widths[last] = widths[last].saturating_sub(over(widths)).max(LEAST_SENTENCE.min(widths[last]));
    }
    while over(widths) > 0 {
        match widths.iter_mut().filter(|width| **width > LEAST).max() {
            Some(widest) => *widest -= 1,
            None => return,
        }
    }
}

/// The words of `text` in lines of at most `width`; a word that is longer stands alone.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [&str; 3] = ["NAME", "LEFT", "HOLDER"];

    fn row(name: &str, holder: &str) -> [String; 3] {
        [name.to_owned(), "59s".to_owned(), holder.to_owned()]
    }

    #[test]
    fn who_is_no_terminal_gets_every_cell_in_full() {
        let name = "n".repeat(300);
        let text = fitted(&HEAD, &[row(&name, "a b c")], None);
        assert!(text.contains(&name) && text.ends_with("a b c\n"), "{text}");
    }

    #[test]
    fn every_line_fits_the_terminal() {
        let rows = [row(&"n".repeat(300), &"word ".repeat(30)), row("short", "s")];
        for width in [40, 80, 132] {
            let text = fitted(&HEAD, &rows, Some(width));
            assert!(text.lines().all(|line| measure_text_width(line) <= width), "{width}\n{text}");
            assert_eq!(text.matches("word").count(), 30, "{text}");
            assert!(text.contains("…"), "{text}");
        }
    }

    #[test]
    fn the_widest_column_is_shortened_and_no_other() {
        let text = fitted(&HEAD, &[row(&"n".repeat(60), &"h".repeat(20))], Some(60));
        assert_eq!(text.lines().nth(1), Some(&*format!("{}…  59s   {}", "n".repeat(31), "h".repeat(20))), "{text}");
    }
}
