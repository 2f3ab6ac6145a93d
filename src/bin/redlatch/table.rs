//! Tables for people: without lines, so that `grep`, `awk` and eyes can read them, and as wide as the terminal.

use console::{Alignment, measure_text_width, pad_str};

use crate::width::{columns, folded_to, shortened, wrapped};

/// The head of a column whose cells are known by their beginning.
pub const DIGEST: &str = "DIGEST";
/// Between two columns.
const GAP: usize = 2;
/// Columns of a terminal that is too narrow are shortened, down to this width.
pub const LEAST: usize = 12;
/// The last column, when it is made of sentences, goes on in the next line, down to the first of these widths if the
/// others can make room.
const LEAST_SENTENCE: [usize; 2] = [40, 24];

/// A table. Where stdout is no terminal, whoever reads gets all of every cell.
pub fn table<H: AsRef<str>, R: AsRef<[String]>>(head: &[H], rows: &[R]) -> String {
    fitted(head, rows, columns())
}

fn fitted<H: AsRef<str>, R: AsRef<[String]>>(head: &[H], rows: &[R], limit: Option<usize>) -> String {
    let head: Vec<_> = head.iter().map(|word| word.as_ref().to_owned()).collect();
    let rows: Vec<_> = std::iter::once(head.as_slice()).chain(rows.iter().map(AsRef::as_ref)).collect();
    let widest = |column| rows.iter().map(|row| measure_text_width(cell(row, column))).max().unwrap_or(0);
    let mut widths: Vec<_> = (0..head.len()).map(widest).collect();
    let last = head.len().saturating_sub(1);
    let sentences = rows.iter().any(|row| cell(row, last).contains(' '));
    if let Some(limit) = limit {
        let digest = head.iter().position(|word| word == DIGEST);
        let fitted =
            LEAST_SENTENCE.into_iter().find_map(|least| fit(&widths, limit, digest, sentences.then_some(least)));
        match fitted {
            Some(fitted) => widths = fitted,
            None => return listed(&rows, limit),
        }
    }
    rows.iter().map(|row| line(row, &widths, sentences)).collect()
}

fn cell(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

/// One row, on several lines where the last cell needs them.
fn line(row: &[String], widths: &[usize], sentences: bool) -> String {
    let last = widths.len().saturating_sub(1);
    let rest = cell(row, last);
    let rest = if sentences { wrapped(rest, widths[last]) } else { vec![rest.to_owned()] };
    let mut text = String::new();
    for (number, end) in rest.iter().enumerate() {
        let cells = widths.iter().enumerate().map(|(column, width)| {
            let cell = match column {
                _ if column == last => end,
                _ if number == 0 => cell(row, column),
                _ => "",
            };
            pad_str(&shortened(cell, *width), *width, Alignment::Left, None).into_owned()
        });
        let cells = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
        text += cells.trim_end();
        text.push('\n');
    }
    text
}

/// Makes columns narrower, that of digests before the widest, until all fit into `limit`; `None` if they do not. A last
/// column of sentences goes first, down to `least`.
fn fit(widths: &[usize], limit: usize, digest: Option<usize>, least: Option<usize>) -> Option<Vec<usize>> {
    let mut widths = widths.to_vec();
    let over =
        |widths: &[usize]| (widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)).saturating_sub(limit);
    let count = widths.len() - usize::from(least.is_some());
    if let Some(least) = least {
        widths[count] = widths[count].saturating_sub(over(&widths)).max(least.min(widths[count]));
    }
    if let Some(digest) = digest {
        widths[digest] = widths[digest].saturating_sub(over(&widths)).max(LEAST.min(widths[digest]));
    }
    while over(&widths) > 0 {
        *widths[..count].iter_mut().filter(|width| **width > LEAST).max()? -= 1;
    }
    Some(widths)
}

/// Each row as a list of its cells, for terminals too narrow for a table.
fn listed(rows: &[&[String]], limit: usize) -> String {
    let Some((head, rows)) = rows.split_first() else { return String::new() };
    let widest = head.iter().map(|word| measure_text_width(word)).max().unwrap_or(0);
    let row = |row: &&[String]| {
        let cells = head.iter().enumerate().map(|(column, word)| match word.as_str() {
            _ if cell(row, column).is_empty() => String::new(),
            "" => format!("{}\n", cell(row, column)),
            word => format!("{word:<widest$}{}{}\n", " ".repeat(GAP), cell(row, column)),
        });
        folded_to(&cells.collect::<String>(), limit)
    };
    rows.iter().map(row).collect::<Vec<_>>().join("\n")
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
        for width in [20, 30, 40, 80, 132] {
            let text = fitted(&HEAD, &rows, Some(width));
            assert!(text.lines().all(|line| measure_text_width(line) <= width), "{width}\n{text}");
            assert_eq!(text.matches("word").count(), 30, "{text}");
        }
    }

    #[test]
    fn the_widest_column_is_shortened_and_no_other() {
        let name = format!("{}-42", "n".repeat(57));
        let text = fitted(&HEAD, &[row(&name, &"h".repeat(20))], Some(60));
        let short = format!("{}…{}-42", "n".repeat(16), "n".repeat(12));
        assert_eq!(text.lines().nth(1), Some(&*format!("{short}  59s   {}", "h".repeat(20))), "{text}");
    }

    #[test]
    fn where_no_table_fits_each_row_is_a_list() {
        let row = |number: &str| [number, &"s".repeat(40), &"r".repeat(12), &"t".repeat(12)].map(str::to_owned);
        let text = fitted(&["", "SERVER", "ROLE", "STATE"], &[row("[1]"), row("[2]")], Some(40));
        let list = format!(
            "SERVER  {}\n        {}\nROLE    {}\nSTATE   {}\n",
            "s".repeat(32),
            "s".repeat(8),
            "r".repeat(12),
            "t".repeat(12)
        );
        assert_eq!(text, format!("[1]\n{list}\n[2]\n{list}"));
    }
}
