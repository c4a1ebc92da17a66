//! What the reading verbs print, in the format that was asked for.
//!
//! A verb builds a [`Page`]: rows for people and values for programs. The names of the fields of
//! the values and the `schema` are a promise; the table may change at any time. Data goes to the
//! standard output and nothing else does.
//!
//! The same thing has the same name and the same type in every document (`names` holds them to it):
//! * who or what: `topic` (its name), `topic_id`, `partition` (a number, never `orders/3`), `broker`,
//!   `leader`, `controller` (numbers, null for nobody), `offset`; `name` for settings, profiles and
//!   words; `subject` where it may be anything;
//! * true or false: `changed`, `fenced`, `healthy`, `is_in_sync`;
//! * sets of brokers are lists of numbers: `replicas`, `in_sync`, `from`, `to`, `voters`;
//! * how many: `THINGS_total`, and `THINGS_leaderless` and so on for those of them in a state;
//! * how much: the unit comes last: `bytes`, `left_bytes`, `bytes_per_s`, `heard_ms`, `eta_s`; an index
//!   of a log, which counts marks as well, is an `_index`, everything else in a log is an offset;
//! * when: `time` in RFC 3339, `timestamp` in milliseconds since 1970;
//! * words: `kind`, `role`, `stage`, `duty`, `source` have an explanation (`hw explain`); `detail`, `why`
//!   and `error` are for people;
//! * what a verb did: `changed`, or false in a dry run.

use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

use crate::yaml;

/// The forms of a reading verb's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One JSON value a line
    Jsonl,
    /// One YAML document
    Yaml,
    /// Only the names, one a line, for xargs
    Name,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct ReadOutput {
    /// How to print it
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// When a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// In every table.
    Always,
    /// With `-o wide` only.
    Wide,
}

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Where its cells stand.
    pub side: Side,
    /// When it is shown.
    pub shown: Shown,
}

/// One thing of a page.
#[derive(Debug)]
pub struct Row {
    /// Its name for `-o name`.
    pub name: String,
    /// Its cells, as many as there are columns.
    pub cells: Vec<String>,
    /// What programs get.
    pub value: Value,
}

/// Rows of one kind, below the columns that head them.
#[derive(Debug)]
pub struct Rows {
    /// The field that holds the values in a document.
    pub field: &'static str,
    /// The columns.
    pub columns: &'static [Column],
    /// The rows.
    pub rows: Vec<Row>,
}

/// All that a reading verb prints.
#[derive(Debug)]
pub struct Page {
    /// Name and version of the document's shape, such as `hw.topic.list/1`.
    pub schema: &'static str,
    /// The name of the one thing described; `None` for a list.
    pub subject: Option<String>,
    /// Facts for people, above the table.
    pub facts: Vec<(&'static str, String)>,
    /// The same for programs: fields of the document.
    pub fields: Map<String, Value>,
    /// The table.
    pub rows: Option<Rows>,
    /// How many rows `-o table` shows; the other forms show all.
    pub table_rows_max: usize,
}

impl Format {
    /// Whether people read it.
    pub fn is_for_people(self) -> bool {
        match self {
            Format::Table | Format::Wide => true,
            Format::Json | Format::Jsonl | Format::Yaml | Format::Name => false,
        }
    }
}

impl Column {
    /// A column of words in every table.
    pub const fn words(title: &'static str) -> Column {
        Column { title, side: Side::Left, shown: Shown::Always }
    }

    /// A column of numbers in every table.
    pub const fn number(title: &'static str) -> Column {
        Column { title, side: Side::Right, shown: Shown::Always }
    }

    /// The same column, with `-o wide` only.
    pub const fn wide(mut self) -> Column {
        self.shown = Shown::Wide;
        self
    }
}

impl Page {
    /// A list of things.
    pub fn list(schema: &'static str, rows: Rows) -> Page {
        Page { rows: Some(rows), ..Page::empty(schema, None) }
    }

    /// One thing.
    pub fn describe(schema: &'static str, subject: impl Into<String>) -> Page {
        Page::empty(schema, Some(subject.into()))
    }

    fn empty(schema: &'static str, subject: Option<String>) -> Page {
        Page {
            schema,
            subject,
            facts: Vec::new(),
            fields: Map::new(),
            rows: None,
            table_rows_max: usize::MAX,
        }
    }

    /// Adds a field for programs.
    pub fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Adds a fact for people.
    pub fn fact(&mut self, label: &'static str, text: impl Into<String>) {
        self.facts.push((label, text.into()));
    }

    /// Prints the page on the standard output; a reader that has gone away is no error.
    pub fn print(&self, format: Format) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        quiet_if_closed(self.write(format, &mut out).and_then(|()| out.flush())).map(|_| ())
    }

    /// Prints the page only in a format for programs: people have been told on the standard error.
    pub fn print_for_programs(&self, format: Format) -> io::Result<()> {
        if format.is_for_people() { Ok(()) } else { self.print(format) }
    }

    /// Writes the page in `format`.
    pub fn write(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Table => self.write_table(Shown::Always, out),
            Format::Wide => self.write_table(Shown::Wide, out),
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &self.document())?;
                writeln!(out)
            }
            Format::Jsonl => self.write_lines(out),
            Format::Yaml => out.write_all(yaml::to_string(&self.document()).as_bytes()),
            Format::Name => self.write_names(out),
        }
    }

    /// The whole page as one value.
    pub fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("schema".to_owned(), json!(self.schema));
        document.extend(self.fields.clone());
        if let Some(rows) = &self.rows {
            let values = rows.rows.iter().map(|row| row.value.clone()).collect();
            document.insert(rows.field.to_owned(), Value::Array(values));
        }
        let document = Value::Object(document);
        #[cfg(test)]
        crate::names::check(&document);
        document
    }

    fn write_lines(&self, out: &mut impl Write) -> io::Result<()> {
        match (&self.subject, &self.rows) {
            (None, Some(rows)) => {
                rows.rows.iter().try_for_each(|row| writeln!(out, "{}", row.value))
            }
            (Some(_), _) | (None, None) => writeln!(out, "{}", self.document()),
        }
    }

    fn write_names(&self, out: &mut impl Write) -> io::Result<()> {
        match (&self.subject, &self.rows) {
            (Some(subject), _) => writeln!(out, "{subject}"),
            (None, Some(rows)) => {
                rows.rows.iter().try_for_each(|row| writeln!(out, "{}", row.name))
            }
            (None, None) => Ok(()),
        }
    }

    fn write_table(&self, up_to: Shown, out: &mut impl Write) -> io::Result<()> {
        let label_width = self.facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, text) in &self.facts {
            writeln!(out, "{label:<label_width$}  {text}")?;
        }
        let Some(rows) = &self.rows else { return Ok(()) };
        if !self.facts.is_empty() && !rows.rows.is_empty() {
            writeln!(out)?;
        }
        let shown = match up_to {
            Shown::Always => rows.rows.len().min(self.table_rows_max),
            Shown::Wide => rows.rows.len(),
        };
        if self.facts.is_empty() || !rows.rows.is_empty() {
            writeln!(out, "{}", table(rows, shown, up_to).trim_fmt())?;
        }
        if shown < rows.rows.len() {
            writeln!(out, "... and {} more; -o wide shows all", rows.rows.len() - shown)?;
        }
        Ok(())
    }
}

fn table(rows: &Rows, rows_max: usize, up_to: Shown) -> Table {
    let shown: Vec<usize> = (0..rows.columns.len())
        .filter(|&at| up_to == Shown::Wide || rows.columns[at].shown == Shown::Always)
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.force_no_tty();
    }
    let aligned = |text: &str, side| {
        Cell::new(text).set_alignment(match side {
            Side::Left => CellAlignment::Left,
            Side::Right => CellAlignment::Right,
        })
    };
    table.set_header(shown.iter().map(|&at| {
        aligned(rows.columns[at].title, rows.columns[at].side).add_attribute(Attribute::Bold)
    }));
    for row in rows.rows.iter().take(rows_max) {
        assert_eq!(row.cells.len(), rows.columns.len(), "a row has a cell for every column");
        table.add_row(shown.iter().map(|&at| aligned(&row.cells[at], rows.columns[at].side)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Whether the reader of the standard output is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// It is.
    There,
    /// It closed the pipe: stop, quietly.
    Gone,
}

/// Turns a broken pipe, as of `hw consume t | head`, into a value; other errors stay errors.
pub fn quiet_if_closed(result: io::Result<()>) -> io::Result<Reader> {
    match result {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}

/// A list of ids as in a table: `1,2,3`, or `-` for none.
pub fn ids<T: std::fmt::Display>(list: &[T]) -> String {
    if list.is_empty() {
        return "-".to_owned();
    }
    list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// A value that may be missing: `-` where it is.
pub fn or_dash<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column::words("TOPIC"), Column::number("PARTITIONS"), Column::words("ID").wide()];

    fn list() -> Page {
        let row = |name: &str, partitions: u32, id: &str| Row {
            name: name.to_owned(),
            cells: vec![name.to_owned(), partitions.to_string(), id.to_owned()],
            value: json!({"topic": name, "partitions_total": partitions, "topic_id": id}),
        };
        let rows = vec![row("orders", 12, "a"), row("b", 3, "c")];
        Page::list("hw.topic.list/1", Rows { field: "topics", columns: COLUMNS, rows })
    }

    fn printed(page: &Page, format: Format) -> String {
        let mut out = Vec::new();
        page.write(format, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("pages are text")
    }

    #[test]
    fn a_table_aligns_numbers_right_and_hides_wide_columns() {
        assert_eq!(
            printed(&list(), Format::Table),
            "TOPIC   PARTITIONS\norders          12\nb                3\n"
        );
        assert!(printed(&list(), Format::Wide).starts_with("TOPIC   PARTITIONS  ID\n"));
    }

    #[test]
    fn a_document_begins_with_its_schema() {
        assert!(
            printed(&list(), Format::Json).starts_with("{\n  \"schema\": \"hw.topic.list/1\",")
        );
        assert!(printed(&list(), Format::Yaml).starts_with("schema: hw.topic.list/1\ntopics:\n"));
    }

    #[test]
    fn a_list_is_one_value_or_one_name_a_line() {
        assert_eq!(printed(&list(), Format::Name), "orders\nb\n");
        assert_eq!(
            printed(&list(), Format::Jsonl),
            "{\"topic\":\"orders\",\"partitions_total\":12,\"topic_id\":\"a\"}\n\
             {\"topic\":\"b\",\"partitions_total\":3,\"topic_id\":\"c\"}\n"
        );
    }

    #[test]
    fn a_description_is_facts_for_people_and_fields_for_programs() {
        let mut page = Page::describe("hw.topic.describe/1", "orders");
        page.fact("Topic", "orders");
        page.fact("Replication", "3");
        page.field("name", "orders");
        assert_eq!(printed(&page, Format::Table), "Topic        orders\nReplication  3\n");
        assert_eq!(printed(&page, Format::Name), "orders\n");
        assert_eq!(
            printed(&page, Format::Jsonl),
            "{\"schema\":\"hw.topic.describe/1\",\"name\":\"orders\"}\n"
        );
    }

    #[test]
    fn a_table_may_be_cut_but_programs_get_all() {
        let page = Page { table_rows_max: 1, ..list() };
        assert!(printed(&page, Format::Table).ends_with("\n... and 1 more; -o wide shows all\n"));
        assert_eq!(printed(&page, Format::Name), "orders\nb\n");
        assert!(printed(&page, Format::Wide).ends_with("b                3  c\n"));
    }

    #[test]
    fn an_empty_list_still_has_its_heading() {
        let rows = Rows { field: "topics", columns: COLUMNS, rows: Vec::new() };
        assert_eq!(printed(&Page::list("x/1", rows), Format::Table), "TOPIC  PARTITIONS\n");
    }
}
