//! The form of the JSON that is printed: that of `serde_json`'s own indentation, which is written in a piece for each line and
//! not for each level, and can begin within a list.

use std::io::{self, Write};

use serde_json::ser::Formatter;

/// What is between two members, as far as most of them are indented.
const LINE: &[u8] = b",\n                                ";
const STEP: usize = 2;

/// Indents members of lists and objects by two spaces.
#[derive(Debug)]
pub struct Indented {
    /// How many lists and objects are open.
    depth: usize,
    /// Whether the innermost has a member.
    has_member: bool,
}

impl Indented {
    /// For a value within so many lists and objects.
    pub fn within(depth: usize) -> Self {
        Indented { depth, has_member: false }
    }

    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth = self.depth.saturating_add(1);
        self.has_member = false;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth = self.depth.saturating_sub(1);
        if self.has_member {
            self.line(writer, false)?;
        }
        writer.write_all(bracket)
    }

    /// Begins a line, after a comma or without one.
    fn line<W: ?Sized + Write>(&self, writer: &mut W, comma: bool) -> io::Result<()> {
        let from = usize::from(!comma);
        let indentation = self.depth.saturating_mul(STEP);
        match LINE.get(from..indentation.saturating_add(2)) {
            Some(line) => writer.write_all(line),
            None => write!(writer, "{}{:indentation$}", if comma { ",\n" } else { "\n" }, ""),
        }
    }
}

impl Formatter for Indented {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.line(writer, !first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.has_member = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.line(writer, !first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.has_member = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Serializer, Value, json};

    use super::*;

    #[test]
    fn json_has_the_form_that_it_always_had() {
        let deep = (0..40).fold(json!([1]), |inner, depth| match depth % 2 {
            0 => json!({ "inner": inner, "next": null }),
            _ => json!([inner, [], "\u{e4}\n\""]),
        });
        for value in
            [json!([]), json!({}), json!(1), json!([[], {}, [[]]]), json!({ "a": { "b": [1, 2] } }), deep]
        {
            let mut text = Vec::new();
            value.serialize(&mut Serializer::with_formatter(&mut text, Indented::within(0))).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn a_member_is_written_as_within_its_list() {
        let member = json!({ "a": [1], "b": {} });
        let mut text = b"[\n  ".to_vec();
        member.serialize(&mut Serializer::with_formatter(&mut text, Indented::within(1))).unwrap();
        text.extend_from_slice(b"\n]");
        let list: Value = json!([member]);
        assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string_pretty(&list).unwrap());
    }
}
