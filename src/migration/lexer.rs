//! PostgreSQL's lexical rules, as far as cutting text into statements needs them.
//!
//! Source: `src/backend/parser/scan.l` and `src/fe_utils/psqlscan.l`. `standard_conforming_strings`
//! is taken to be on, as it is by default since 9.1. Tokens never panic, whatever the text.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space, or a byte order mark at the very beginning.
    Space,
    /// `-- …` or `/* … */`.
    Comment,
    /// A key word or a name without quotes.
    Word,
    /// `"…"`.
    QuotedName,
    /// `'…'` with whatever prefix.
    Text,
    /// `$tag$…$tag$`.
    DollarText,
    /// `;`.
    Semicolon,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// What follows a COPY … FROM STDIN: from its semicolon up to and with the line `\.`.
    CopyData,
    /// `\`, which SQL does not know: a command of psql.
    Backslash,
    /// Anything else, byte for byte.
    Other,
}

/// One token and the bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// Neither white space, nor a comment, nor a COPY's data.
    pub fn is_significant(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Comment | Kind::CopyData)
    }

    /// Its text.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        sql.get(self.start..self.end).unwrap_or_default()
    }
}

/// Something that begins and never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unterminated {
    /// In words.
    pub what: &'static str,
    /// Where it begins.
    pub start: usize,
}

/// The tokens of a text, without a gap between them. After an error there are none.
pub(crate) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    copy: CopyState,
}

/// How far the present statement is on its way to being a COPY … FROM STDIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyState {
    /// Nothing of it was read.
    Blank,
    /// It begins with COPY, and so many parentheses are open.
    Begun(usize),
    /// FROM is the last word, outside parentheses.
    From,
    /// FROM STDIN was read.
    Stdin,
    /// Data follow.
    Data,
    /// It is another statement.
    Other,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a str) -> Self {
        Lexer { bytes: sql.as_bytes(), at: 0, copy: CopyState::Blank }
    }

    fn byte(&self, at: usize) -> u8 {
        // NUL never begins or ends anything, so it serves as the end of the text.
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn while_(&self, mut at: usize, accept: impl Fn(u8) -> bool) -> usize {
        while at < self.bytes.len() && accept(self.byte(at)) {
            at += 1;
        }
        at
    }

    fn find(&self, needle: &[u8], from: usize) -> Option<usize> {
        memchr::memmem::find(self.bytes.get(from..)?, needle).map(|found| from + found)
    }

    /// The end of a line comment that begins at `at`.
    fn line_comment(&self, at: usize) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        memchr::memchr2(b'\n', b'\r', rest).map_or(self.bytes.len(), |end| at + end)
    }

    /// The end of a block comment that begins at `at`; they nest.
    fn block_comment(&self, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        let mut at = at;
        while at < self.bytes.len() {
            match (self.byte(at), self.byte(at + 1)) {
                (b'/', b'*') => {
                    depth += 1;
                    at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => at += 1,
            }
        }
        None
    }

    /// The end of a quote whose first character inside is at `at`. A doubled quote stands for itself.
    fn quoted(&self, mut at: usize, quote: u8, backslashes: bool) -> Option<usize> {
        while at < self.bytes.len() {
            // Where nothing special stands, at once to what does.
            let other = if backslashes { b'\\' } else { quote };
            at += memchr::memchr2(quote, other, self.bytes.get(at..)?)?;
            let byte = self.byte(at);
            let escapes = backslashes && byte == b'\\';
            if escapes || (byte == quote && self.byte(at + 1) == quote) {
                at += 2;
            } else if byte == quote {
                match self.continued(at + 1).filter(|_| backslashes) {
                    Some(inside) => at = inside,
                    None => return Some(at + 1),
                }
            } else {
                at += 1;
            }
        }
        None
    }

    /// A string goes on after white space that holds a line's end (scan.l: `quotecontinue`). It matters
    /// for `E''` only: the next piece has backslashes too, though no `E` stands before it.
    fn continued(&self, mut at: usize) -> Option<usize> {
        let mut new_line = false;
        loop {
            match (self.byte(at), self.byte(at + 1)) {
                (b'\n' | b'\r', _) => {
                    new_line = true;
                    at += 1;
                }
                (b' ' | b'\t' | 0x0b | 0x0c, _) => at += 1,
                (b'-', b'-') => at = self.line_comment(at),
                (b'\'', _) if new_line => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Where the body of a dollar quote begins, when one begins at `at`.
    fn dollar_tag(&self, at: usize) -> Option<usize> {
        let mut end = at + 1;
        if is_word_start(self.byte(end)) {
            end = self.while_(end, |byte| is_word_start(byte) || byte.is_ascii_digit());
        }
        (self.byte(end) == b'$').then_some(end + 1)
    }

    /// The end of a COPY's data that begin in the line after `at`; `None`: there are none.
    fn copy_data(&self, at: usize) -> Option<usize> {
        let mut line = self.while_(at, |byte| is_space(byte) && byte != b'\n');
        if self.byte(line) != b'\n' {
            return None;
        }
        // Rows are skipped to what may be the last line: there may be millions of them.
        loop {
            let found = self.find(b"\n\\.", line)?;
            let end = found + 3;
            match (self.byte(end), self.byte(end + 1)) {
                (b'\n', _) => return Some(end),
                (b'\r', b'\n') => return Some(end + 1),
                (b'\r', _) if end + 1 >= self.bytes.len() => return Some(end + 1),
                _ if end >= self.bytes.len() => return Some(end),
                _ => line = end,
            }
        }
    }

    /// `\restrict` and `\unrestrict`, which pg_dump puts around a dump, alone in their line.
    fn dump_guard(&self, at: usize) -> Option<usize> {
        let start = self.bytes.get(..at)?.iter().rposition(|&byte| byte == b'\n').map_or(0, |before| before + 1);
        let rest = self.bytes.get(at..)?;
        let is_guard = rest.starts_with(b"\\restrict ") || rest.starts_with(b"\\unrestrict ");
        (start == at && is_guard).then(|| self.while_(at, |byte| byte != b'\n' && byte != b'\r'))
    }

    /// Follows the statement that the token belongs to.
    fn follow(&mut self, kind: Kind, start: usize, end: usize) {
        let is = |word: &[u8]| self.bytes.get(start..end).is_some_and(|text| text.eq_ignore_ascii_case(word));
        self.copy = match (self.copy, kind) {
            (same, Kind::Space | Kind::Comment) => same,
            (CopyState::Stdin, Kind::Semicolon) => CopyState::Data,
            (CopyState::Stdin, _) => CopyState::Stdin,
            (_, Kind::Semicolon) | (CopyState::Data, _) => CopyState::Blank,
            (CopyState::Blank, Kind::Word) if is(b"copy") => CopyState::Begun(0),
            (CopyState::Begun(depth), Kind::Open) => CopyState::Begun(depth + 1),
            (CopyState::Begun(depth), Kind::Close) => CopyState::Begun(depth.saturating_sub(1)),
            (CopyState::Begun(0), Kind::Word) if is(b"from") => CopyState::From,
            (CopyState::Begun(depth), _) => CopyState::Begun(depth),
            (CopyState::From, Kind::Word) if is(b"stdin") => CopyState::Stdin,
            _ => CopyState::Other,
        };
    }

    fn token(&self) -> Result<(Kind, usize), &'static str> {
        let at = self.at;
        if self.copy == CopyState::Data
            && let Some(end) = self.copy_data(at)
        {
            return Ok((Kind::CopyData, end));
        }
        let (byte, next) = (self.byte(at), self.byte(at + 1));
        Ok(match byte {
            0xef if at == 0 && self.bytes.starts_with(b"\xef\xbb\xbf") => (Kind::Space, 3),
            _ if is_space(byte) => (Kind::Space, self.while_(at, is_space)),
            b'-' if next == b'-' => (Kind::Comment, self.line_comment(at)),
            b'/' if next == b'*' => (Kind::Comment, self.block_comment(at).ok_or("comment")?),
            b'\'' => {
                let end = self.quoted(at + 1, b'\'', false).ok_or("string")?;
                (Kind::Text, end)
            }
            b'e' | b'E' if next == b'\'' => {
                let end = self.quoted(at + 2, b'\'', true).ok_or("string")?;
                (Kind::Text, end)
            }
            b'"' => {
                let end = self.quoted(at + 1, b'"', false).ok_or("quoted name")?;
                (Kind::QuotedName, end)
            }
            b'$' => match self.dollar_tag(at) {
                Some(body) => {
                    let tag = self.bytes.get(at..body).unwrap_or_default();
                    let close = self.find(tag, body).ok_or("dollar quote")?;
                    (Kind::DollarText, close + tag.len())
                }
                // `$1`, or a lone `$`.
                None => (Kind::Other, self.while_(at + 1, |byte| byte.is_ascii_digit())),
            },
            b';' => (Kind::Semicolon, at + 1),
            b'(' => (Kind::Open, at + 1),
            b')' => (Kind::Close, at + 1),
            b'\\' => match self.dump_guard(at) {
                Some(end) => (Kind::Comment, end),
                None => (Kind::Backslash, at + 1),
            },
            _ if is_word_start(byte) => (Kind::Word, self.while_(at, is_word)),
            _ => (Kind::Other, at + 1),
        })
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, Unterminated>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let start = self.at;
        match self.token() {
            Ok((kind, end)) => {
                let end = end.min(self.bytes.len());
                self.at = end;
                self.follow(kind, start, end);
                Some(Ok(Token { kind, start, end }))
            }
            Err(what) => {
                self.at = self.bytes.len();
                Some(Err(Unterminated { what, start }))
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// scan.l's `ident_start`: every byte beyond ASCII is a letter.
fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(sql: &str) -> Vec<(Kind, &str)> {
        Lexer::new(sql)
            .map(|token| token.unwrap())
            .filter(Token::is_significant)
            .map(|token| (token.kind, token.text(sql)))
            .collect()
    }

    #[test]
    fn a_dollar_in_a_name_opens_no_quote() {
        assert_eq!(
            kinds("a$b$ $1 $ x"),
            [(Kind::Word, "a$b$"), (Kind::Other, "$1"), (Kind::Other, "$"), (Kind::Word, "x")]
        );
    }

    #[test]
    fn a_dollar_quote_ends_at_its_own_tag_only() {
        assert_eq!(
            kinds("$a$ ; $b$ $$ $a$;$ä$;$ä$"),
            [(Kind::DollarText, "$a$ ; $b$ $$ $a$"), (Kind::Semicolon, ";"), (Kind::DollarText, "$ä$;$ä$")]
        );
    }

    #[test]
    fn a_parameter_may_stand_before_a_dollar_quote() {
        assert_eq!(kinds("$1$$;$$"), [(Kind::Other, "$1"), (Kind::DollarText, "$$;$$")]);
    }

    #[test]
    fn backslashes_escape_in_e_strings_only() {
        assert_eq!(
            kinds(r"E'\'' '\' U&'\'"),
            [(Kind::Text, r"E'\''"), (Kind::Text, r"'\'"), (Kind::Word, "U"), (Kind::Other, "&"), (Kind::Text, r"'\'")]
        );
    }

    #[test]
    fn an_e_string_goes_on_in_the_next_line() {
        let sql = "E'a' -- why\n 'b\\';' x";
        assert_eq!(kinds(sql).len(), 2);
        assert_eq!(kinds("E'a' 'b'").len(), 2);
    }

    #[test]
    fn comments_nest_and_begin_inside_operators() {
        assert_eq!(kinds("/* /* ; */ ; */ a"), [(Kind::Word, "a")]);
        assert_eq!(kinds("1 +-- ;\n2").len(), 3);
    }

    #[test]
    fn what_never_ends_is_told_with_its_beginning() {
        for (sql, what, start) in [
            ("a 'b", "string", 2),
            ("a /* /* */", "comment", 2),
            ("\"x", "quoted name", 0),
            ("  $f$ $$", "dollar quote", 2),
        ] {
            let error = Lexer::new(sql).find_map(std::result::Result::err);
            assert_eq!(error, Some(Unterminated { what, start }), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn tokens_cover_the_text_without_gaps(sql in "[-a-e$'\"\\\\;/*()\n é1]{0,40}") {
            let mut at = 0;
            for token in Lexer::new(&sql) {
                match token {
                    Ok(token) => {
                        prop_assert_eq!(token.start, at);
                        prop_assert!(token.end > token.start);
                        prop_assert!(sql.get(token.start..token.end).is_some());
                        at = token.end;
                    }
                    Err(error) => {
                        prop_assert_eq!(error.start, at);
                        at = sql.len();
                    }
                }
            }
            prop_assert_eq!(at, sql.len());
        }
    }
}
