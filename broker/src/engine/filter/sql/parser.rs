//! From tokens to a tree, checking what can be checked without a message.
//!
//! Operators from the loosest to the tightest: OR; AND; `=` `<>` IS NULL; `<` `<=` `>` `>=` BETWEEN IN CONTAINS
//! STARTSWITH ENDSWITH; then NOT and the signs. So `NOT a > 1` is `(NOT a) > 1`, which is refused.
//!
//! Nesting, depth and size of what is accepted are bounded, so that neither parsing nor evaluating can exhaust the stack.

use super::expr::{Expr, Literal, Order, Search};
use super::lexer::{Keyword, Kind, Symbol, Token, tokens};
use super::{MAX_DEPTH, MAX_NAMES, MAX_PARTS, SqlError, shown};

/// Parses the whole text. Gives the tree, and the sorted names of the properties to which its slots refer.
pub(super) fn parse(text: &str) -> Result<(Expr, Vec<Box<str>>), SqlError> {
    let tokens = tokens(text)?;
    let mut names: Vec<Box<str>> = Vec::new();
    for token in tokens.iter().filter(|token| token.kind == Kind::Name) {
        let name = &text[token.start..token.end];
        if let Err(slot) = names.binary_search_by(|known| (**known).cmp(name)) {
            if names.len() == MAX_NAMES {
                return Err(SqlError::new(
                    text,
                    token.start,
                    format!("more than {MAX_NAMES} different properties"),
                ));
            }
            names.insert(slot, name.into());
        }
    }
    let mut parser = Parser {
        text,
        tokens: &tokens,
        next: 0,
        names: &names,
        nesting: 0,
        parts: 0,
    };
    let root = parser.disjunction()?;
    let root = parser.condition(root)?;
    if *parser.kind() != Kind::End {
        return Err(parser.unexpected("an operator, AND, OR or the end"));
    }
    Ok((root.expr, names))
}

/// A subtree and where it stands.
struct Node {
    expr: Expr,
    start: usize,
    end: usize,
    depth: usize,
}

struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token], // the last one is the end, beyond which `next` never goes
    next: usize,
    names: &'a [Box<str>],
    nesting: usize,
    parts: usize,
}

impl Parser<'_> {
    fn disjunction(&mut self) -> Result<Node, SqlError> {
        self.chain(Keyword::Or, Self::conjunction, Expr::Or)
    }

    fn conjunction(&mut self) -> Result<Node, SqlError> {
        self.chain(Keyword::And, Self::equality, Expr::And)
    }

    /// Conditions joined by one keyword become one node, however many there are.
    fn chain(
        &mut self,
        keyword: Keyword,
        term: fn(&mut Self) -> Result<Node, SqlError>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Node, SqlError> {
        let first = term(self)?;
        if !self.at_keyword(keyword) {
            return Ok(first);
        }
        let first = self.condition(first)?;
        let (start, mut end, mut depth) = (first.start, first.end, first.depth);
        let mut terms = vec![first.expr];
        while self.accept_keyword(keyword) {
            let next = term(self)?;
            let next = self.condition(next)?;
            end = next.end;
            depth = depth.max(next.depth);
            terms.push(next.expr);
        }
        self.node(join(terms), start, end, depth + 1)
    }

    fn equality(&mut self) -> Result<Node, SqlError> {
        let mut left = self.comparison()?;
        loop {
            if self.accept_keyword(Keyword::Is) {
                let negated = self.accept_keyword(Keyword::Not);
                if !self.at_keyword(Keyword::Null) {
                    return Err(self.unexpected(if negated { "NULL" } else { "NULL or NOT NULL" }));
                }
                let end = self.advance().end;
                left = self.node(
                    Expr::IsNull {
                        negated,
                        operand: Box::new(left.expr),
                    },
                    left.start,
                    end,
                    left.depth + 1,
                )?;
                continue;
            }
            let negated = match self.kind() {
                Kind::Symbol(Symbol::Equal) => false,
                Kind::Symbol(Symbol::NotEqual) => true,
                _ => return Ok(left),
            };
            self.advance();
            let right = self.comparison()?;
            left = self.equal(negated, left, right)?;
        }
    }

    fn equal(&mut self, negated: bool, left: Node, right: Node) -> Result<Node, SqlError> {
        for side in [&left, &right] {
            if matches!(side.expr, Expr::Literal(Literal::Null)) {
                return Err(self.error(
                    side.start,
                    "nothing equals NULL; use IS NULL or IS NOT NULL",
                ));
            }
        }
        if let (Expr::Literal(Literal::Bool(_)), Expr::Literal(other)) = (&left.expr, &right.expr)
            && !matches!(other, Literal::Bool(_))
        {
            let message = format!(
                "{} cannot be compared with {}",
                self.source(&left),
                self.source(&right)
            );
            return Err(self.error(right.start, message));
        }
        let (start, end, depth) = (left.start, right.end, left.depth.max(right.depth) + 1);
        self.node(
            Expr::Equal {
                negated,
                left: Box::new(left.expr),
                right: Box::new(right.expr),
            },
            start,
            end,
            depth,
        )
    }

    fn comparison(&mut self) -> Result<Node, SqlError> {
        let mut left = self.unary()?;
        loop {
            left = match self.kind() {
                Kind::Symbol(Symbol::Greater) => self.ordered(left, Order::Greater, ">")?,
                Kind::Symbol(Symbol::GreaterOrEqual) => {
                    self.ordered(left, Order::GreaterOrEqual, ">=")?
                }
                Kind::Symbol(Symbol::Less) => self.ordered(left, Order::Less, "<")?,
                Kind::Symbol(Symbol::LessOrEqual) => {
                    self.ordered(left, Order::LessOrEqual, "<=")?
                }
                Kind::Keyword(_) => {
                    let negated = self.accept_keyword(Keyword::Not);
                    match self.kind() {
                        Kind::Keyword(Keyword::Between) => self.between(left, negated)?,
                        Kind::Keyword(Keyword::In) => self.in_list(left, negated)?,
                        Kind::Keyword(Keyword::Contains) => {
                            self.search(left, negated, Search::Contains)?
                        }
                        Kind::Keyword(Keyword::StartsWith) => {
                            self.search(left, negated, Search::StartsWith)?
                        }
                        Kind::Keyword(Keyword::EndsWith) => {
                            self.search(left, negated, Search::EndsWith)?
                        }
                        _ if negated => {
                            return Err(
                                self.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")
                            );
                        }
                        _ => return Ok(left),
                    }
                }
                _ => return Ok(left),
            };
        }
    }

    fn ordered(&mut self, left: Node, order: Order, operator: &str) -> Result<Node, SqlError> {
        self.check_number(&left, operator)?;
        self.advance();
        let right = self.unary()?;
        self.check_number(&right, operator)?;
        let (start, end, depth) = (left.start, right.end, left.depth.max(right.depth) + 1);
        self.node(
            Expr::Ordered {
                order,
                left: Box::new(left.expr),
                right: Box::new(right.expr),
            },
            start,
            end,
            depth,
        )
    }

    /// `x BETWEEN a AND b` is `x >= a AND x <= b`; with NOT it is `x < a OR x > b`.
    fn between(&mut self, left: Node, negated: bool) -> Result<Node, SqlError> {
        self.check_number(&left, "BETWEEN")?;
        self.advance();
        let low = self.unary()?;
        self.check_number(&low, "BETWEEN")?;
        if !self.accept_keyword(Keyword::And) {
            return Err(self.unexpected("AND and the upper bound of BETWEEN"));
        }
        let high = self.unary()?;
        self.check_number(&high, "BETWEEN")?;
        if let (Expr::Literal(lower), Expr::Literal(upper), false) =
            (&low.expr, &high.expr, negated)
            && lower.value().is_above(&upper.value())
        {
            let message = format!(
                "nothing is between {} and {}",
                self.source(&low),
                self.source(&high)
            );
            return Err(self.error(low.start, message));
        }
        let (start, end) = (left.start, high.end);
        let depth = left.depth.max(low.depth).max(high.depth) + 2;
        let side = |order, bound: Expr| Expr::Ordered {
            order,
            left: Box::new(left.expr.clone()),
            right: Box::new(bound),
        };
        let expr = if negated {
            Expr::Or(vec![
                side(Order::Less, low.expr),
                side(Order::Greater, high.expr),
            ])
        } else {
            Expr::And(vec![
                side(Order::GreaterOrEqual, low.expr),
                side(Order::LessOrEqual, high.expr),
            ])
        };
        self.node(expr, start, end, depth)
    }

    fn in_list(&mut self, left: Node, negated: bool) -> Result<Node, SqlError> {
        let Expr::Property(slot) = left.expr else {
            let message = format!(
                "IN needs a property before it, not {}{}",
                self.source(&left),
                not_hint(&left.expr)
            );
            return Err(self.error(left.start, message));
        };
        self.advance();
        if !self.accept_symbol(Symbol::Open) {
            return Err(self.unexpected("( and strings after IN"));
        }
        let mut values = vec![self.string("a string for IN")?.0];
        while self.accept_symbol(Symbol::Comma) {
            values.push(self.string("a string for IN")?.0);
        }
        if !self.at_symbol(Symbol::Close) {
            return Err(self.unexpected(", or )"));
        }
        let end = self.advance().end;
        values.sort_unstable();
        values.dedup();
        self.node(
            Expr::In {
                negated,
                slot,
                values: values.into(),
            },
            left.start,
            end,
            left.depth + 1,
        )
    }

    fn search(&mut self, left: Node, negated: bool, search: Search) -> Result<Node, SqlError> {
        self.advance();
        let (wanted, end) = self.string("a string to look for")?;
        let expr = Expr::Search {
            negated,
            search,
            operand: Box::new(left.expr),
            wanted,
        };
        self.node(expr, left.start, end, left.depth + 1)
    }

    fn string(&mut self, expected: &str) -> Result<(Box<str>, usize), SqlError> {
        let Kind::Text(text) = self.kind() else {
            return Err(self.unexpected(expected));
        };
        let text = text.clone();
        Ok((text, self.advance().end))
    }

    fn unary(&mut self) -> Result<Node, SqlError> {
        let start = self.token().start;
        let negation = self.at_keyword(Keyword::Not);
        let minus = self.at_symbol(Symbol::Minus);
        if !negation && !minus && !self.at_symbol(Symbol::Plus) {
            return self.primary();
        }
        self.advance();
        self.enter(start)?;
        let mut operand = self.unary()?;
        self.nesting -= 1;
        if negation {
            let operand = self.condition(operand)?;
            return self.node(
                Expr::Not(Box::new(operand.expr)),
                start,
                operand.end,
                operand.depth + 1,
            );
        }
        if minus {
            operand.expr = match operand.expr {
                Expr::Literal(Literal::Int(value)) => {
                    Expr::Literal(Literal::Int(value.wrapping_neg()))
                }
                Expr::Literal(Literal::Long(value)) => {
                    Expr::Literal(Literal::Long(value.wrapping_neg()))
                }
                Expr::Literal(Literal::Float(value)) => Expr::Literal(Literal::Float(-value)),
                Expr::Property(_) | Expr::Unknown => Expr::Unknown,
                _ => {
                    let message = format!("- needs a number, not {}", self.source(&operand));
                    return Err(self.error(operand.start, message));
                }
            };
        }
        Ok(Node { start, ..operand })
    }

    fn primary(&mut self) -> Result<Node, SqlError> {
        let Token { start, end, .. } = *self.token();
        let expr = match self.kind() {
            Kind::Name => {
                let name = &self.text[start..end];
                let Ok(slot) = self.names.binary_search_by(|known| (**known).cmp(name)) else {
                    return Err(self.unexpected("a value"));
                };
                Expr::Property(slot)
            }
            Kind::Integer(value) => {
                Expr::Literal(i32::try_from(*value).map_or(Literal::Long(*value), Literal::Int))
            }
            Kind::Float(value) => Expr::Literal(Literal::Float(*value)),
            Kind::Text(text) => Expr::Literal(Literal::Text(text.clone())),
            Kind::Keyword(Keyword::Null) => Expr::Literal(Literal::Null),
            Kind::Keyword(Keyword::True) => Expr::Literal(Literal::Bool(true)),
            Kind::Keyword(Keyword::False) => Expr::Literal(Literal::Bool(false)),
            Kind::Symbol(Symbol::Open) => return self.group(),
            _ => return Err(self.unexpected("a value")),
        };
        self.advance();
        self.node(expr, start, end, 1)
    }

    fn group(&mut self) -> Result<Node, SqlError> {
        let start = self.advance().start;
        self.enter(start)?;
        let inner = self.disjunction()?;
        self.nesting -= 1;
        if !self.at_symbol(Symbol::Close) {
            return Err(self.unexpected("an operator, AND, OR or )"));
        }
        let end = self.advance().end;
        Ok(Node {
            start,
            end,
            ..inner
        })
    }

    /// Lets pass what has a truth value. A property does: it is text, and no text is TRUE by itself.
    fn condition(&self, node: Node) -> Result<Node, SqlError> {
        match &node.expr {
            Expr::Unknown
            | Expr::Literal(
                Literal::Int(_) | Literal::Long(_) | Literal::Float(_) | Literal::Text(_),
            ) => Err(self.error(
                node.start,
                format!("expected a condition, found {}", self.source(&node)),
            )),
            _ => Ok(node),
        }
    }

    fn check_number(&self, node: &Node, operator: &str) -> Result<(), SqlError> {
        match &node.expr {
            Expr::Property(_)
            | Expr::Unknown
            | Expr::Literal(Literal::Int(_) | Literal::Long(_) | Literal::Float(_)) => Ok(()),
            expr => {
                let message = format!(
                    "{operator} compares numbers, not {}{}",
                    self.source(node),
                    not_hint(expr)
                );
                Err(self.error(node.start, message))
            }
        }
    }

    fn node(
        &mut self,
        expr: Expr,
        start: usize,
        end: usize,
        depth: usize,
    ) -> Result<Node, SqlError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(self.error(
                start,
                format!("the expression has more than {MAX_PARTS} parts"),
            ));
        }
        if depth > MAX_DEPTH {
            return Err(self.error(
                start,
                format!("the expression is more than {MAX_DEPTH} levels deep"),
            ));
        }
        Ok(Node {
            expr,
            start,
            end,
            depth,
        })
    }

    fn enter(&mut self, start: usize) -> Result<(), SqlError> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(self.error(
                start,
                format!("the expression is more than {MAX_DEPTH} levels deep"),
            ));
        }
        Ok(())
    }

    fn token(&self) -> &Token {
        &self.tokens[self.next]
    }

    fn kind(&self) -> &Kind {
        &self.token().kind
    }

    fn at_keyword(&self, wanted: Keyword) -> bool {
        *self.kind() == Kind::Keyword(wanted)
    }

    fn at_symbol(&self, wanted: Symbol) -> bool {
        *self.kind() == Kind::Symbol(wanted)
    }

    fn accept_keyword(&mut self, wanted: Keyword) -> bool {
        let found = self.at_keyword(wanted);
        if found {
            self.advance();
        }
        found
    }

    fn accept_symbol(&mut self, wanted: Symbol) -> bool {
        let found = self.at_symbol(wanted);
        if found {
            self.advance();
        }
        found
    }

    /// Goes to the next token and returns the one that was passed.
    fn advance(&mut self) -> &Token {
        let passed = self.next;
        self.next = (passed + 1).min(self.tokens.len() - 1);
        &self.tokens[passed]
    }

    fn source(&self, node: &Node) -> String {
        shown(&self.text[node.start..node.end])
    }

    fn unexpected(&self, expected: &str) -> SqlError {
        let token = self.token();
        let word = &self.text[token.start..token.end];
        let found = if token.kind == Kind::End {
            "the end".to_owned()
        } else {
            shown(word)
        };
        let hint = match &token.kind {
            Kind::Name if word.eq_ignore_ascii_case("LIKE") => {
                "; use CONTAINS, STARTSWITH or ENDSWITH"
            }
            Kind::Symbol(Symbol::Plus | Symbol::Minus) => "; arithmetic is not supported",
            Kind::Integer(_) | Kind::Float(_) if expected.starts_with("a string") => {
                "; strings stand in single quotes"
            }
            _ => "",
        };
        self.error(
            token.start,
            format!("expected {expected}, found {found}{hint}"),
        )
    }

    fn error(&self, offset: usize, message: impl Into<String>) -> SqlError {
        SqlError::new(self.text, offset, message.into())
    }
}

fn not_hint(expr: &Expr) -> &'static str {
    if matches!(expr, Expr::Not(_)) {
        " (NOT binds tighter: put what it negates into parentheses)"
    } else {
        ""
    }
}
