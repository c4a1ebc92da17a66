//! Writes JSON values as YAML 1.2 block style: just enough for `-o yaml`, readable by any parser.
//!
//! Strings are written plain only where no YAML parser, 1.1 or 1.2, could take them for anything
//! else; all others are quoted as JSON, which YAML accepts. There is no reader here.

use serde_json::Value;

/// `value` as one YAML document, ending in a newline.
pub fn to_string(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut text),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            scalar(value, &mut text);
            text.push('\n');
        }
    }
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Object(map) => {
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 {
                    indent(depth, text);
                }
                string(key, text);
                text.push(':');
                entry(value, depth, text);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    indent(depth, text);
                }
                text.push('-');
                item_of_list(item, depth, text);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => scalar(value, text),
    }
}

/// What follows `key:`; nested blocks start on a line of their own.
fn entry(value: &Value, depth: usize, text: &mut String) {
    if is_block(value) {
        text.push('\n');
        indent(depth + 1, text);
        block(value, depth + 1, text);
    } else {
        text.push(' ');
        scalar(value, text);
        text.push('\n');
    }
}

/// What follows `-`; a nested block starts on the same line, which is how people write it.
fn item_of_list(value: &Value, depth: usize, text: &mut String) {
    text.push(' ');
    if is_block(value) {
        block(value, depth + 1, text);
    } else {
        scalar(value, text);
        text.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn indent(depth: usize, text: &mut String) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value, text: &mut String) {
    match value {
        Value::String(plain) => string(plain, text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            text.push_str(&value.to_string())
        }
    }
}

fn string(value: &str, text: &mut String) {
    if is_plain(value) {
        text.push_str(value);
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

/// Letters first, then nothing that has a meaning, and none of the words that are not strings.
fn is_plain(value: &str) -> bool {
    const WORDS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"];
    let mut characters = value.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))
        && !WORDS.contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: Value, expected: &str) {
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn nested_lists_and_maps_are_indented_by_two() {
        check(
            json!({"schema": "hw.topic.list/1", "topics": [
                {"name": "orders", "partitions": 12, "replicas": [[1, 2], [3]]},
                {"name": "b", "configs": {}, "errors": []},
            ]}),
            "schema: hw.topic.list/1\n\
             topics:\n\
             \x20 - name: orders\n\
             \x20   partitions: 12\n\
             \x20   replicas:\n\
             \x20     - - 1\n\
             \x20       - 2\n\
             \x20     - - 3\n\
             \x20 - name: b\n\
             \x20   configs: {}\n\
             \x20   errors: []\n",
        );
    }

    #[test]
    fn strings_that_look_like_something_else_are_quoted() {
        for tricky in [
            "",
            "no",
            "Yes",
            "NULL",
            "1",
            "1e3",
            "-",
            "- a",
            "a: b",
            "a #b",
            "~",
            "2026-11-21",
            " a",
            "ä",
            "a\nb",
            "0x1f",
        ] {
            check(json!(tricky), &format!("{}\n", json!(tricky)));
        }
        for plain in ["orders", "min.insync.replicas", "a/b", "n1"] {
            check(json!(plain), &format!("{plain}\n"));
        }
    }

    #[test]
    fn scalars_and_empty_documents_are_one_line() {
        check(json!(null), "null\n");
        check(json!(true), "true\n");
        check(json!(-3), "-3\n");
        check(json!([]), "[]\n");
        check(json!({}), "{}\n");
    }
}
