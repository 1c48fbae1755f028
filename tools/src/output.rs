//! What a command prints: lines for people, or one JSON object a line for scripts.

use std::fmt::Display;
use std::io::{self, ErrorKind, Stdout, Write};

use serde_json::Value;

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// One line for the user.
    Said(String),
    /// Whoever read our output has gone; there is nobody to tell.
    NobodyReads,
}

impl Failure {
    /// A failure in the words of its cause.
    pub fn from(cause: impl Display) -> Self {
        Self::Said(cause.to_string())
    }
}

impl From<corelane_client::ClientError> for Failure {
    fn from(error: corelane_client::ClientError) -> Self {
        Self::from(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::from(error),
        }
    }
}

/// Standard output in one of the two forms.
pub struct Output {
    json: bool,
    stdout: Stdout,
}

impl Output {
    /// Lines for people, or JSON.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            stdout: io::stdout(),
        }
    }

    /// Prints one thing.
    pub fn record(&mut self, json: &Value, line: &str) -> Result<(), Failure> {
        if self.json {
            writeln!(self.stdout, "{json}")?;
        } else {
            writeln!(self.stdout, "{line}")?;
        }
        Ok(())
    }

    /// Prints bytes as they are, and ends the line.
    pub fn bytes(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(line)?;
        self.stdout.write_all(b"\n")?;
        Ok(())
    }

    /// Prints text as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()?;
        Ok(())
    }

    /// Prints rows under headings in aligned columns; as JSON, an object a row with the headings' names.
    pub fn table<const N: usize>(
        &mut self,
        columns: [&str; N],
        rows: &[[Value; N]],
    ) -> Result<(), Failure> {
        if self.json {
            for row in rows {
                let object: serde_json::Map<String, Value> = columns
                    .iter()
                    .map(|column| (*column).to_owned())
                    .zip(row.iter().cloned())
                    .collect();
                writeln!(self.stdout, "{}", Value::Object(object))?;
            }
            return Ok(());
        }
        let cell = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let mut lines = vec![columns.map(str::to_owned)];
        lines.extend(rows.iter().map(|row| row.each_ref().map(cell)));
        let widths: [usize; N] = std::array::from_fn(|i| {
            lines
                .iter()
                .map(|line| line[i].chars().count())
                .max()
                .unwrap_or(0)
        });
        for line in &lines {
            let text: Vec<String> = line
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(self.stdout, "{}", text.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Prints one line on standard error.
pub fn complain(message: &str) {
    // Where even standard error is gone, there is nothing left to do about it.
    let _ = writeln!(io::stderr(), "corelane: {message}");
}
