//! The words of an expression: the whole text becomes tokens with their places before any of it is parsed.

use super::SqlError;

/// One word and the bytes of the text it stands on.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// The name of a property; it is the token's own text.
    Name,
    Keyword(Keyword),
    Symbol(Symbol),
    Integer(i64),
    Float(f64),
    /// A string without its quotes.
    Text(Box<str>),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Not,
    And,
    Or,
    Between,
    In,
    Is,
    Null,
    True,
    False,
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
}

/// Keywords in any case; everything else that looks like one is a name.
const KEYWORDS: [(&str, Keyword); 12] = [
    ("NOT", Keyword::Not),
    ("AND", Keyword::And),
    ("OR", Keyword::Or),
    ("BETWEEN", Keyword::Between),
    ("IN", Keyword::In),
    ("IS", Keyword::Is),
    ("NULL", Keyword::Null),
    ("TRUE", Keyword::True),
    ("FALSE", Keyword::False),
    ("CONTAINS", Keyword::Contains),
    ("STARTSWITH", Keyword::StartsWith),
    ("ENDSWITH", Keyword::EndsWith),
];

/// Splits the text; the last token is always [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, SqlError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks_and_comments()?;
        let start = lexer.at;
        let kind = lexer.next_kind()?;
        let ended = kind == Kind::End;
        tokens.push(Token {
            kind,
            start,
            end: lexer.at,
        });
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize, // always between two characters
}

impl Lexer<'_> {
    fn skip_blanks_and_comments(&mut self) -> Result<(), SqlError> {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if self.rest().starts_with("--") {
                self.take_while(|c| c != '\n' && c != '\r');
            } else if self.rest().starts_with("/*") {
                let Some(len) = self.rest()[2..].find("*/") else {
                    return Err(self.error(self.at, "the comment does not end: */ is missing"));
                };
                self.at += 2 + len + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn next_kind(&mut self) -> Result<Kind, SqlError> {
        let Some(first) = self.peek() else {
            return Ok(Kind::End);
        };
        match first {
            'a'..='z' | 'A'..='Z' | '_' | '$' => Ok(self.word()),
            '0'..='9' => self.number(),
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            '\'' => self.string(),
            _ => self.symbol(first),
        }
    }

    fn word(&mut self) -> Kind {
        let start = self.at;
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
        let word = &self.text[start..self.at];
        KEYWORDS
            .iter()
            .find(|(text, _)| word.eq_ignore_ascii_case(text))
            .map_or(Kind::Name, |(_, keyword)| Kind::Keyword(*keyword))
    }

    fn number(&mut self) -> Result<Kind, SqlError> {
        let start = self.at;
        self.take_digits();
        let fraction = self.accept('.');
        if fraction {
            self.take_digits();
        }
        let exponent = self.take_exponent();
        let digits = &self.text[start..self.at];
        if fraction || exponent {
            return self.float(start, digits);
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(self.error(start, "an integer has no leading zero"));
        }
        let value = digits
            .parse()
            .map_err(|_| self.error(start, "the integer does not fit into 64 bits"))?;
        if !self.accept('L') {
            self.accept('l');
        }
        Ok(Kind::Integer(value))
    }

    /// Takes `e5`, `E+5`, `e-5`; an `e` without digits is not part of the number.
    fn take_exponent(&mut self) -> bool {
        let before = self.at;
        if self.accept('e') || self.accept('E') {
            let _sign = self.accept('+') || self.accept('-');
            if self.take_digits() {
                return true;
            }
        }
        self.at = before;
        false
    }

    fn float(&self, start: usize, digits: &str) -> Result<Kind, SqlError> {
        match digits.parse::<f64>() {
            Ok(value) if value.is_infinite() => {
                Err(self.error(start, "the number is too large for a float"))
            }
            Ok(0.0) => Err(self.error(
                start,
                "the number is too small for a float; zero is written 0",
            )),
            Ok(value) => Ok(Kind::Float(value)),
            Err(_) => Err(self.error(start, "this is not a number")),
        }
    }

    fn string(&mut self) -> Result<Kind, SqlError> {
        let start = self.at;
        let mut value = String::new();
        while self.accept('\'') {
            // Beyond the first round this quote was the second of a pair, which stands for one.
            if self.at - 1 > start {
                value.push('\'');
            }
            let from = self.at;
            self.take_while(|c| c != '\'');
            value.push_str(&self.text[from..self.at]);
            if !self.accept('\'') {
                return Err(self.error(start, "the string does not end: a quote is missing"));
            }
        }
        Ok(Kind::Text(value.into()))
    }

    fn symbol(&mut self, first: char) -> Result<Kind, SqlError> {
        let rest = self.rest();
        let (symbol, len) = match first {
            '=' if rest.starts_with("==") => {
                return Err(self.error(self.at, "== is not an operator; equality is written ="));
            }
            '=' => (Symbol::Equal, 1),
            '<' if rest.starts_with("<>") => (Symbol::NotEqual, 2),
            '<' if rest.starts_with("<=") => (Symbol::LessOrEqual, 2),
            '<' => (Symbol::Less, 1),
            '>' if rest.starts_with(">=") => (Symbol::GreaterOrEqual, 2),
            '>' => (Symbol::Greater, 1),
            '(' => (Symbol::Open, 1),
            ')' => (Symbol::Close, 1),
            ',' => (Symbol::Comma, 1),
            '+' => (Symbol::Plus, 1),
            '-' => (Symbol::Minus, 1),
            '!' => return Err(self.error(self.at, "! is not an operator; use <> or NOT")),
            '*' | '/' | '%' => return Err(self.error(self.at, "arithmetic is not supported")),
            '"' | '`' => {
                return Err(self.error(self.at, "strings stand in single quotes, names in none"));
            }
            '.' => {
                return Err(self.error(
                    self.at,
                    "names are of letters, digits, _ and $; a dot belongs to a number",
                ));
            }
            other => return Err(self.error(self.at, format!("unexpected character {other:?}"))),
        };
        self.at += len;
        Ok(Kind::Symbol(symbol))
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn accept(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) {
        self.at = self
            .rest()
            .find(|c| !wanted(c))
            .map_or(self.text.len(), |len| self.at + len);
    }

    fn take_digits(&mut self) -> bool {
        let before = self.at;
        self.take_while(|c| c.is_ascii_digit());
        self.at > before
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> SqlError {
        SqlError::new(self.text, offset, message.into())
    }
}
