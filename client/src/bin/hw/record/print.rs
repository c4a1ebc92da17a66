//! The forms in which a stream of records is printed.

use std::io::{self, Write};

use serde_json::json;

use super::args::{ConsumeArgs, RecordFormat};
use super::format::{Shown, Template};
use crate::yaml;

/// Prints record after record, and what stands before and after them all.
pub struct Printer {
    form: Form,
    printed: u64,
}

enum Form {
    Value,
    KeyAndValue(Vec<u8>),
    Pattern(Template),
    Jsonl,
    Json,
    Yaml,
    Name,
}

impl Printer {
    /// The form that the arguments ask for.
    pub fn new(args: &ConsumeArgs) -> Printer {
        let form = match (&args.format, &args.key_sep) {
            (Some(template), _) => Form::Pattern(template.clone()),
            (None, Some(separator)) => Form::KeyAndValue(separator.0.clone()),
            (None, None) => match args.output {
                RecordFormat::Value => Form::Value,
                RecordFormat::Jsonl => Form::Jsonl,
                RecordFormat::Json => Form::Json,
                RecordFormat::Yaml => Form::Yaml,
                RecordFormat::Name => Form::Name,
            },
        };
        Printer { form, printed: 0 }
    }

    /// Whether headers are printed at all; collecting them costs an allocation.
    pub fn wants_headers(&self) -> bool {
        match &self.form {
            Form::Pattern(_) | Form::Jsonl | Form::Json | Form::Yaml => true,
            Form::Value | Form::KeyAndValue(_) | Form::Name => false,
        }
    }

    /// Prints one record.
    pub fn print(&mut self, record: Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        let first = self.printed == 0;
        self.printed += 1;
        match &self.form {
            Form::Value => line(record, out),
            Form::KeyAndValue(separator) => {
                if let Some(key) = record.key {
                    out.write_all(key)?;
                    out.write_all(separator)?;
                }
                line(record, out)
            }
            Form::Name => {
                writeln!(out, "{}/{}@{}", record.topic, record.partition, record.offset)
            }
            Form::Pattern(template) => template.write(record, out),
            Form::Jsonl => writeln!(out, "{}", record.to_json()),
            Form::Json if first => {
                write!(out, "{{\"schema\":\"{SCHEMA}\",\"records\":[\n{}", record.to_json())
            }
            Form::Json => write!(out, ",\n{}", record.to_json()),
            Form::Yaml => {
                if first {
                    writeln!(out, "schema: {SCHEMA}\nrecords:")?;
                }
                out.write_all(yaml::to_string(&json!([record.to_json()])).as_bytes())
            }
        }
    }

    /// Prints what stands after the last record.
    pub fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        match (&self.form, self.printed) {
            (Form::Json, 0) => writeln!(out, "{{\"schema\":\"{SCHEMA}\",\"records\":[]}}"),
            (Form::Json, _) => writeln!(out, "\n]}}"),
            (Form::Yaml, 0) => writeln!(out, "schema: {SCHEMA}\nrecords: []"),
            (
                Form::Value
                | Form::KeyAndValue(_)
                | Form::Pattern(_)
                | Form::Jsonl
                | Form::Yaml
                | Form::Name,
                _,
            ) => Ok(()),
        }
    }
}

fn line(record: Shown<'_>, out: &mut impl Write) -> io::Result<()> {
    out.write_all(record.value.unwrap_or_default())?;
    out.write_all(b"\n")
}

const SCHEMA: &str = "hw.consume/1";

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::lines::split_key;

    fn printed(form: Form, records: &[(Option<&[u8]>, &[u8])]) -> Vec<u8> {
        let mut printer = Printer { form, printed: 0 };
        let mut out = Vec::new();
        for (offset, (key, value)) in (0..).zip(records) {
            let record = Shown {
                topic: "t",
                partition: 1,
                offset,
                timestamp: 5,
                key: *key,
                value: Some(value),
                headers: &[],
            };
            printer.print(record, &mut out).expect("a vector takes everything");
        }
        printer.end(&mut out).expect("a vector takes everything");
        out
    }

    #[test]
    fn what_was_split_at_the_separator_is_printed_as_it_was() {
        for separator in [&b":"[..], b"=>", b"\x1f"] {
            for line in ["k:v", ":v", "k:", "none", "", "a:b:c", "a=>b=>c", "\r", "k\x1fv"] {
                let line = Bytes::from_static(line.as_bytes());
                let (key, value) = split_key(&line, separator);
                let form = Form::KeyAndValue(separator.to_vec());
                let mut again = printed(form, &[(key.as_deref(), &value)]);
                assert_eq!(again.pop(), Some(b'\n'));
                assert_eq!(again, line, "{separator:?}");
            }
        }
    }

    #[test]
    fn json_is_one_document_however_many_records_there_are() {
        let (a, b) = ((None, &b"a"[..]), (Some(&b"k"[..]), &b"b"[..]));
        for records in [&[][..], &[a], &[a, b]] {
            let text = printed(Form::Json, records);
            let document: serde_json::Value = serde_json::from_slice(&text).expect("valid JSON");
            assert_eq!(document["schema"], SCHEMA);
            assert_eq!(document["records"].as_array().map(Vec::len), Some(records.len()));
        }
    }

    #[test]
    fn yaml_is_a_list_below_its_schema() {
        assert_eq!(printed(Form::Yaml, &[]), b"schema: hw.consume/1\nrecords: []\n");
        let text = printed(Form::Yaml, &[(None, b"a"), (None, b"b")]);
        let text = String::from_utf8(text).expect("text");
        assert!(text.starts_with("schema: hw.consume/1\nrecords:\n- topic: t\n"), "{text}");
        assert_eq!(text.matches("\n- ").count(), 2, "{text}");
    }

    #[test]
    fn names_say_where_a_record_is() {
        assert_eq!(printed(Form::Name, &[(None, b"a"), (None, b"b")]), b"t/1@0\nt/1@1\n");
    }
}
