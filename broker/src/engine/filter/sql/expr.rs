//! The tree of an expression, and its value for one message.
//!
//! Truth has three values: [`Value::Null`] is the unknown one. Beside them stands [`Failed`]: a property that does not
//! convert to the type it is compared with ends the evaluation, unless AND or OR were decided before it.
//!
//! The value of a property is text. It is converted to the type of what it is compared with: as strictly as Java's
//! `Integer`, `Long` and `Double` do it, so "1.5" fails against 1, and "99999999999" against an integer of 32 bits.

use std::cmp::Ordering;

/// A subexpression. The depth is bounded by the parser, so evaluating may recurse.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    Literal(Literal),
    /// A property, by its number among the names of the expression.
    Property(usize),
    /// The negative of a property: NULL, as text has no negative.
    Unknown,
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Equal {
        negated: bool,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Ordered {
        order: Order,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    IsNull {
        negated: bool,
        operand: Box<Expr>,
    },
    /// `values` are sorted.
    In {
        negated: bool,
        slot: usize,
        values: Box<[Box<str>]>,
    },
    Search {
        negated: bool,
        search: Search,
        operand: Box<Expr>,
        wanted: Box<str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    Contains,
    StartsWith,
    EndsWith,
}

/// A constant. Integers have the smaller type that holds them when written; it decides how a property is converted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Float(f64),
    Text(Box<str>),
}

/// What a subexpression is worth for one message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Float(f64),
    Text(&'a [u8]),
}

/// A property does not convert to the type it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl Expr {
    /// The value, with the properties of a message by slot.
    pub fn evaluate<'a>(&'a self, slots: &[Option<&'a [u8]>]) -> Result<Value<'a>, Failed> {
        Ok(match self {
            Self::Literal(literal) => literal.value(),
            Self::Property(slot) => property(slots, *slot),
            Self::Unknown => Value::Null,
            Self::Not(operand) => {
                Value::truth(operand.evaluate(slots)?.as_truth().map(|truth| !truth))
            }
            Self::And(terms) => Value::truth(join(terms, slots, false)?),
            Self::Or(terms) => Value::truth(join(terms, slots, true)?),
            Self::Equal {
                negated,
                left,
                right,
            } => {
                let equal = left.evaluate(slots)?.equals(right.evaluate(slots)?)?;
                Value::truth(equal.map(|equal| equal != *negated))
            }
            Self::Ordered { order, left, right } => {
                let ordering = left.evaluate(slots)?.compare(right.evaluate(slots)?)?;
                Value::truth(ordering.map(|ordering| order.holds(ordering)))
            }
            Self::IsNull { negated, operand } => {
                Value::Bool((operand.evaluate(slots)? == Value::Null) != *negated)
            }
            Self::In {
                negated,
                slot,
                values,
            } => match property(slots, *slot) {
                Value::Text(text) => {
                    let found = values
                        .binary_search_by(|value| value.as_bytes().cmp(text))
                        .is_ok();
                    Value::Bool(found != *negated)
                }
                _ => Value::Null,
            },
            Self::Search {
                negated,
                search,
                operand,
                wanted,
            } => match operand.evaluate(slots)? {
                Value::Text(text) if !wanted.is_empty() => {
                    Value::Bool(search.finds(text, wanted) != *negated)
                }
                _ => Value::Bool(false),
            },
        })
    }

    /// The same expression with every comparison of constants replaced by its result. Those that fail stay, as AND and OR
    /// may never come to them.
    pub fn fold(self) -> Self {
        let fold_box = |expr: Box<Self>| Box::new(expr.fold());
        let fold_all = |terms: Vec<Self>| terms.into_iter().map(Self::fold).collect();
        let folded = match self {
            Self::Not(operand) => Self::Not(fold_box(operand)),
            Self::And(terms) => Self::And(fold_all(terms)),
            Self::Or(terms) => Self::Or(fold_all(terms)),
            Self::Equal {
                negated,
                left,
                right,
            } => Self::Equal {
                negated,
                left: fold_box(left),
                right: fold_box(right),
            },
            Self::Ordered { order, left, right } => Self::Ordered {
                order,
                left: fold_box(left),
                right: fold_box(right),
            },
            Self::IsNull { negated, operand } => Self::IsNull {
                negated,
                operand: fold_box(operand),
            },
            Self::Search {
                negated,
                search,
                operand,
                wanted,
            } => Self::Search {
                negated,
                search,
                operand: fold_box(operand),
                wanted,
            },
            leaf @ (Self::Literal(_) | Self::Property(_) | Self::Unknown | Self::In { .. }) => leaf,
        };
        if folded.operands_are_literals() {
            match folded.evaluate(&[]) {
                Ok(Value::Bool(truth)) => return Self::Literal(Literal::Bool(truth)),
                Ok(Value::Null) => return Self::Literal(Literal::Null),
                _ => {}
            }
        }
        folded
    }

    fn operands_are_literals(&self) -> bool {
        let literal = |expr: &Self| matches!(expr, Self::Literal(_));
        match self {
            Self::Not(operand) | Self::IsNull { operand, .. } | Self::Search { operand, .. } => {
                literal(operand)
            }
            Self::And(terms) | Self::Or(terms) => terms.iter().all(literal),
            Self::Equal { left, right, .. } | Self::Ordered { left, right, .. } => {
                literal(left) && literal(right)
            }
            Self::Literal(_) | Self::Property(_) | Self::Unknown | Self::In { .. } => false,
        }
    }
}

fn property<'a>(slots: &[Option<&'a [u8]>], slot: usize) -> Value<'a> {
    slots
        .get(slot)
        .copied()
        .flatten()
        .map_or(Value::Null, Value::Text)
}

/// AND and OR, of which the first term that is `decisive` (FALSE and TRUE) ends the matter; otherwise one unknown term
/// makes the whole unknown.
fn join(terms: &[Expr], slots: &[Option<&[u8]>], decisive: bool) -> Result<Option<bool>, Failed> {
    let mut result = Some(!decisive);
    for term in terms {
        match term.evaluate(slots)?.as_truth() {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => result = None,
        }
    }
    Ok(result)
}

impl Literal {
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Int(value) => Value::Int(*value),
            Self::Long(value) => Value::Long(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Text(text) => Value::Text(text.as_bytes()),
        }
    }
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Search {
    fn finds(self, text: &[u8], wanted: &str) -> bool {
        match self {
            // In linear time whatever the text; what is not UTF-8 in it cannot be part of what is wanted.
            Self::Contains => text
                .utf8_chunks()
                .any(|chunk| chunk.valid().contains(wanted)),
            Self::StartsWith => text.starts_with(wanted.as_bytes()),
            Self::EndsWith => text.ends_with(wanted.as_bytes()),
        }
    }
}

impl Value<'_> {
    fn truth(truth: Option<bool>) -> Self {
        truth.map_or(Value::Null, Value::Bool)
    }

    /// The truth of a condition, `None` when it is unknown. Text is not true, whatever it says.
    pub fn as_truth(self) -> Option<bool> {
        match self {
            Self::Null => None,
            Self::Bool(truth) => Some(truth),
            _ => Some(false),
        }
    }

    /// Whether a number is above another one; false for what are not numbers.
    pub fn is_above(&self, other: &Self) -> bool {
        matches!(self.compare(*other), Ok(Some(Ordering::Greater)))
    }

    /// Whether this value, on the left, equals the one on the right. NULL is unknown on the left alone: on the right it is
    /// a value that nothing but another NULL equals, as with Apache.
    fn equals(self, other: Self) -> Result<Option<bool>, Failed> {
        Ok(match (self, other) {
            (Self::Null, Self::Null) => Some(true),
            (Self::Null, _) => None,
            (_, Self::Null) => Some(false),
            (Self::Text(left), Self::Text(right)) => Some(left == right),
            (Self::Bool(left), Self::Bool(right)) => Some(left == right),
            (Self::Bool(truth), Self::Text(text)) | (Self::Text(text), Self::Bool(truth)) => {
                Some(text.eq_ignore_ascii_case(b"true") == truth)
            }
            (Self::Bool(_), _) | (_, Self::Bool(_)) => Some(false),
            (left, right) => left.compare(right)?.map(Ordering::is_eq),
        })
    }

    /// How two numbers are ordered, `None` with NULL. Two texts are compared as floats; the order of floats is total, with
    /// NaN above all and -0.0 below 0.0.
    fn compare(self, other: Self) -> Result<Option<Ordering>, Failed> {
        Ok(Some(match (self, other) {
            (Self::Null, _) | (_, Self::Null) => return Ok(None),
            (Self::Text(left), Self::Text(right)) => {
                parse_float(left)?.total_cmp(&parse_float(right)?)
            }
            (Self::Text(text), number) => number.convert(text)?.compare_number(number)?,
            (number, Self::Text(text)) => number.compare_number(number.convert(text)?)?,
            (left, right) => left.compare_number(right)?,
        }))
    }

    /// Converts a text to the type of this number.
    fn convert(self, text: &[u8]) -> Result<Self, Failed> {
        match self {
            Self::Int(_) => parse(text).map(Self::Int),
            Self::Long(_) => parse(text).map(Self::Long),
            Self::Float(_) => parse_float(text).map(Self::Float),
            Self::Null | Self::Bool(_) | Self::Text(_) => Err(Failed),
        }
    }

    fn compare_number(self, other: Self) -> Result<Ordering, Failed> {
        match (self.as_long(), other.as_long()) {
            (Some(left), Some(right)) => Ok(left.cmp(&right)),
            _ => Ok(self.as_float()?.total_cmp(&other.as_float()?)),
        }
    }

    fn as_long(self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(value.into()),
            Self::Long(value) => Some(value),
            _ => None,
        }
    }

    fn as_float(self) -> Result<f64, Failed> {
        match self {
            Self::Int(value) => Ok(value.into()),
            Self::Long(value) => Ok(value as f64),
            Self::Float(value) => Ok(value),
            Self::Null | Self::Bool(_) | Self::Text(_) => Err(Failed),
        }
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T, Failed> {
    std::str::from_utf8(text)
        .map_err(|_| Failed)?
        .parse()
        .map_err(|_| Failed)
}

/// Java's `Double.parseDouble` but for its hexadecimal form: blanks around are ignored, a suffix f or d too, and the names
/// NaN and Infinity are exact.
fn parse_float(text: &[u8]) -> Result<f64, Failed> {
    let first = text.iter().position(|byte| *byte > b' ').ok_or(Failed)?;
    let last = text.iter().rposition(|byte| *byte > b' ').ok_or(Failed)?;
    let text = &text[first..=last];
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let magnitude = match unsigned {
        b"NaN" => return Ok(f64::NAN),
        b"Infinity" => f64::INFINITY,
        // Rust's own names for these begin with a letter and stay out here.
        [b'0'..=b'9' | b'.', ..] => parse(
            unsigned
                .strip_suffix(b"f")
                .or(unsigned.strip_suffix(b"F"))
                .or(unsigned.strip_suffix(b"d"))
                .or(unsigned.strip_suffix(b"D"))
                .unwrap_or(unsigned),
        )?,
        _ => return Err(Failed),
    };
    Ok(if negative { -magnitude } else { magnitude })
}
