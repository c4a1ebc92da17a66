//! `--watch`: the same look again and again, for whoever waits for something to change.
//!
//! On a terminal the page is drawn anew; elsewhere pages are appended, and tables become one JSON
//! document a line, because nobody can take a stream of tables apart. A look that fails is
//! reported and does not end the watch: that is when people watch.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use crate::exit::{Exit, Failure};
use crate::output::{Format, Page};

#[derive(Debug, Clone, Copy, Args)]
pub struct Watch {
    /// Look again every 2 s, or as often as said, until Ctrl-C
    #[arg(long = "watch", short = 'w', value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2s", value_parser = crate::human::parse_duration)]
    pub every: Option<Duration>,
}

impl Watch {
    /// Prints what `look` finds, once or again and again.
    pub async fn show(
        self,
        format: Format,
        mut look: impl AsyncFnMut() -> Result<(Page, Exit), Failure>,
    ) -> Result<Exit, Failure> {
        let (page, mut exit) = look().await?;
        let Some(every) = self.every else {
            page.print(format)?;
            return Ok(exit);
        };
        let terminal = io::stdout().is_terminal();
        let mut seen: Result<Page, Failure> = Ok(page);
        loop {
            match seen {
                Ok(page) => match draw(&page, format, terminal, &mut io::stdout().lock()) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit),
                    drawn => drawn?,
                },
                Err(failure) => failure.report(),
            }
            tokio::time::sleep(every).await;
            seen = look().await.map(|(page, now)| {
                exit = now;
                page
            });
        }
    }
}

fn draw(page: &Page, format: Format, terminal: bool, out: &mut impl Write) -> io::Result<()> {
    // Written at once, so that a redrawn page does not flicker.
    let mut text = Vec::new();
    match format {
        Format::Table | Format::Wide if !terminal => writeln!(text, "{}", page.document())?,
        Format::Table | Format::Wide => {
            text.extend_from_slice(CLEAR);
            page.write(format, &mut text)?;
        }
        Format::Json => writeln!(text, "{}", page.document())?,
        Format::Jsonl | Format::Yaml | Format::Name => page.write(format, &mut text)?,
    }
    out.write_all(&text)?;
    out.flush()
}

/// Home, and clear to the end of the screen and of what scrolled away.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J\x1b[3J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_redrawn_and_a_pipe_gets_a_document_a_line() {
        let mut page = Page::describe("hw.test/1", "thing");
        page.fact("Thing", "thing");
        page.field("thing", 1);
        let drawn = |format, terminal| {
            let mut out = Vec::new();
            draw(&page, format, terminal, &mut out).expect("a vector");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(drawn(Format::Table, true), "\x1b[H\x1b[2J\x1b[3JThing  thing\n");
        let line = "{\"schema\":\"hw.test/1\",\"thing\":1}\n";
        assert_eq!(drawn(Format::Table, false), line);
        assert_eq!(drawn(Format::Json, true), line);
        assert_eq!(drawn(Format::Name, false), "thing\n");
    }
}
