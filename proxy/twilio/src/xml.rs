//! A scanner that says whether bytes are one well-formed XML 1.0 document, and nothing more.
//!
//! It reads once, front to back, and borrows everything: no tree, no entity expansion, no
//! allocation but the stack of open elements. Entities that a document defines itself are refused
//! rather than expanded, so that no input costs more than its length. A tokenizer that forgives (as
//! most do for names, characters and attribute values) will not do here: Twilio's parser does not
//! forgive, and a document wrongly passed is a call lost.

/// What the scanner meets, in document order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// The start of an element; its attributes follow as tokens of their own.
    Start(&'a str),
    /// An attribute of the element just started, value as written.
    Attribute(&'a str, &'a str),
    /// The end of the innermost element, be it by end tag or by `/>`.
    End,
    /// Character data or CDATA that is not only white space.
    Text,
}

/// Why a text is not well-formed, with the byte at which it stops being so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Ended inside the document.
    Unfinished,
    /// A construct that the grammar does not allow here.
    Syntax(&'static str),
    /// More than one root, or text beside it.
    BesideRoot,
    /// The document defines entities of its own.
    Entities,
    /// An encoding other than UTF-8 is declared.
    Encoding,
    /// Elements nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// TwiML nests five deep at the most; this only bounds the work.
pub(crate) const MAX_DEPTH: usize = 64;
/// No TwiML element has more than some thirty attributes.
const MAX_ATTRIBUTES: usize = 64;

type Result<T> = std::result::Result<T, Fault>;

pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<&'a str>,
    root_seen: bool,
    in_tag: Option<Vec<&'a str>>,
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0, open: Vec::with_capacity(8), root_seen: false, in_tag: None }
    }

    /// The next token; `None` at the end of a whole document.
    pub(crate) fn next(&mut self) -> Result<Option<Token<'a>>> {
        if self.at == 0 && self.rest().starts_with("<?xml") && is_blank_at(self.text, 5) {
            self.declaration()?;
        }
        if self.in_tag.is_some() {
            return self.inside_tag().map(Some);
        }
        loop {
            if self.rest().is_empty() {
                let whole = self.open.is_empty() && self.root_seen;
                return if whole { Ok(None) } else { Err(self.fault(FaultKind::Unfinished)) };
            }
            let token =
                if self.rest().starts_with('<') { self.markup()? } else { self.characters()? };
            if token.is_some() {
                return Ok(token);
            }
        }
    }

    fn markup(&mut self) -> Result<Option<Token<'a>>> {
        let rest = self.rest();
        if rest.starts_with("<!--") {
            self.comment().map(|()| None)
        } else if rest.starts_with("<![CDATA[") {
            self.cdata()
        } else if rest.starts_with("<?") {
            self.instruction().map(|()| None)
        } else if rest.starts_with("<!DOCTYPE") {
            self.doctype().map(|()| None)
        } else if rest.starts_with("</") {
            self.end_tag().map(Some)
        } else {
            self.start_tag().map(Some)
        }
    }

    fn start_tag(&mut self) -> Result<Token<'a>> {
        if self.open.is_empty() && self.root_seen {
            return Err(self.fault(FaultKind::BesideRoot));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(self.fault(FaultKind::TooDeep));
        }
        self.at += 1;
        let name = self.name("an element's name")?;
        self.root_seen = true;
        self.open.push(name);
        self.in_tag = Some(Vec::new());
        Ok(Token::Start(name))
    }

    fn inside_tag(&mut self) -> Result<Token<'a>> {
        let blank = self.skip_blank();
        if self.eat("/>") {
            self.in_tag = None;
            self.open.pop();
            return Ok(Token::End);
        }
        if self.eat(">") {
            self.in_tag = None;
            // The tag is done; what follows is content, an end tag, or the end of the input.
            return match self.next()? {
                Some(token) => Ok(token),
                None => Err(self.fault(FaultKind::Unfinished)),
            };
        }
        if !blank {
            return Err(self.syntax("a blank before an attribute"));
        }
        let name = self.name("an attribute's name")?;
        let start = self.at;
        match self.in_tag.as_mut() {
            Some(seen) if seen.contains(&name) => {
                return Err(Fault { at: start, kind: FaultKind::Syntax("each attribute once") });
            }
            Some(seen) if seen.len() == MAX_ATTRIBUTES => {
                return Err(Fault { at: start, kind: FaultKind::Syntax("fewer attributes") });
            }
            Some(seen) => seen.push(name),
            None => {}
        }
        self.skip_blank();
        if !self.eat("=") {
            return Err(self.syntax("= after an attribute's name"));
        }
        self.skip_blank();
        Ok(Token::Attribute(name, self.quoted()?))
    }

    fn quoted(&mut self) -> Result<&'a str> {
        let quote = match self.rest().as_bytes().first() {
            Some(b'"') => '"',
            Some(b'\'') => '\'',
            Some(_) => return Err(self.syntax("a quoted value")),
            None => return Err(self.fault(FaultKind::Unfinished)),
        };
        self.at += 1;
        let Some(len) = self.rest().find(quote) else { return Err(self.unfinished()) };
        let value = &self.rest()[..len];
        if let Some(bad) = value.find('<') {
            return Err(Fault { at: self.at + bad, kind: FaultKind::Syntax("&lt; in a value") });
        }
        self.check_characters(value)?;
        self.check_references(value)?;
        self.at += len + 1;
        Ok(value)
    }

    fn end_tag(&mut self) -> Result<Token<'a>> {
        let start = self.at;
        self.at += 2;
        let name = self.name("an element's name")?;
        self.skip_blank();
        if !self.eat(">") {
            return Err(self.syntax("> after an end tag's name"));
        }
        match self.open.pop() {
            Some(open) if open == name => Ok(Token::End),
            _ => {
                Err(Fault { at: start, kind: FaultKind::Syntax("the end tag of the open element") })
            }
        }
    }

    fn characters(&mut self) -> Result<Option<Token<'a>>> {
        let len = self.rest().find('<').unwrap_or(self.rest().len());
        let data = &self.rest()[..len];
        let blank = data.bytes().all(is_blank);
        if self.open.is_empty() && !blank {
            return Err(self.fault(FaultKind::BesideRoot));
        }
        if !blank {
            if let Some(bad) = data.find("]]>") {
                return Err(Fault { at: self.at + bad, kind: FaultKind::Syntax("]]&gt; in text") });
            }
            self.check_characters(data)?;
            self.check_references(data)?;
        }
        self.at += len;
        Ok((!blank).then_some(Token::Text))
    }

    fn cdata(&mut self) -> Result<Option<Token<'a>>> {
        if self.open.is_empty() {
            return Err(self.fault(FaultKind::BesideRoot));
        }
        self.at += "<![CDATA[".len();
        let data = self.until("]]>")?;
        Ok((!data.bytes().all(is_blank)).then_some(Token::Text))
    }

    fn comment(&mut self) -> Result<()> {
        self.at += "<!--".len();
        let start = self.at;
        let body = self.until("--")?;
        self.check_characters_from(start, body)?;
        if self.eat(">") { Ok(()) } else { Err(self.syntax("no -- inside a comment")) }
    }

    fn instruction(&mut self) -> Result<()> {
        self.at += 2;
        let target = self.name("an instruction's target")?;
        if target.eq_ignore_ascii_case("xml") {
            return Err(self.syntax("the XML declaration at the very start"));
        }
        if !self.rest().starts_with("?>") && !self.skip_blank() {
            return Err(self.syntax("a blank after an instruction's target"));
        }
        self.until("?>").map(drop)
    }

    fn doctype(&mut self) -> Result<()> {
        if self.root_seen {
            return Err(self.syntax("a document type before the root"));
        }
        let Some(len) = self.rest().find(['>', '[']) else { return Err(self.unfinished()) };
        if self.rest()[len..].starts_with('[') {
            return Err(self.fault(FaultKind::Entities));
        }
        let inside = &self.rest()["<!DOCTYPE".len()..len];
        let name = inside.trim_start();
        let named = name.len() < inside.len() && name.starts_with(is_name_start);
        if !named {
            return Err(self.syntax("a name after <!DOCTYPE"));
        }
        self.at += len + 1;
        Ok(())
    }

    fn declaration(&mut self) -> Result<()> {
        self.at = "<?xml".len();
        let start = self.at;
        let body = self.until("?>")?;
        let mut rest = body;
        for (index, expected) in ["version", "encoding", "standalone"].into_iter().enumerate() {
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let Some(after) = trimmed.strip_prefix(expected) else {
                if index == 0 {
                    return Err(Fault { at: start, kind: FaultKind::Syntax("a version") });
                }
                continue;
            };
            let value = pseudo_attribute(after).filter(|_| trimmed.len() < rest.len());
            let Some((value, after)) = value else {
                return Err(Fault { at: start, kind: FaultKind::Syntax("a quoted value") });
            };
            let fine = match expected {
                "version" => value.starts_with("1.") && value.len() > 2,
                "encoding" => {
                    if !value.eq_ignore_ascii_case("utf-8") && !is_ascii_superset(value, self.text)
                    {
                        return Err(Fault { at: start, kind: FaultKind::Encoding });
                    }
                    true
                }
                _ => matches!(value, "yes" | "no"),
            };
            if !fine {
                return Err(Fault { at: start, kind: FaultKind::Syntax("a known value") });
            }
            rest = after;
        }
        if rest.bytes().all(is_blank) {
            Ok(())
        } else {
            Err(Fault { at: start, kind: FaultKind::Syntax("?> after the declaration") })
        }
    }

    fn name(&mut self, wanted: &'static str) -> Result<&'a str> {
        let rest = self.rest();
        let len = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        match rest.chars().next() {
            None => Err(self.fault(FaultKind::Unfinished)),
            Some(first) if !is_name_start(first) => Err(self.syntax(wanted)),
            Some(_) if len == rest.len() => Err(self.unfinished()),
            Some(_) => {
                self.at += len;
                Ok(&rest[..len])
            }
        }
    }

    fn until(&mut self, end: &str) -> Result<&'a str> {
        let Some(len) = self.rest().find(end) else { return Err(self.unfinished()) };
        let body = &self.rest()[..len];
        self.check_characters(body)?;
        self.at += len + end.len();
        Ok(body)
    }

    fn check_characters(&self, text: &str) -> Result<()> {
        self.check_characters_from(self.at, text)
    }

    fn check_characters_from(&self, start: usize, text: &str) -> Result<()> {
        let plain = |byte: u8| (0x20..0x80).contains(&byte);
        if text.bytes().all(plain) {
            return Ok(());
        }
        match text.char_indices().find(|&(_, c)| !is_xml_char(c)) {
            None => Ok(()),
            Some((bad, _)) => {
                Err(Fault { at: start + bad, kind: FaultKind::Syntax("a character XML allows") })
            }
        }
    }

    fn check_references(&self, text: &str) -> Result<()> {
        let mut from = 0;
        while let Some(found) = text[from..].find('&') {
            let at = from + found;
            let known = text[at + 1..].split_once(';').is_some_and(|(name, _)| is_reference(name));
            if !known {
                let kind = FaultKind::Syntax("&amp; or a known entity");
                return Err(Fault { at: self.at + at, kind });
            }
            from = at + 1;
        }
        Ok(())
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn skip_blank(&mut self) -> bool {
        let len = self.rest().bytes().take_while(|&byte| is_blank(byte)).count();
        self.at += len;
        len > 0
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        Fault { at: self.at, kind }
    }

    fn syntax(&self, wanted: &'static str) -> Fault {
        if self.rest().is_empty() {
            self.unfinished()
        } else {
            self.fault(FaultKind::Syntax(wanted))
        }
    }

    fn unfinished(&self) -> Fault {
        Fault { at: self.text.len(), kind: FaultKind::Unfinished }
    }
}

fn pseudo_attribute(text: &str) -> Option<(&str, &str)> {
    let blank = [' ', '\t', '\r', '\n'];
    let value = text.trim_start_matches(blank).strip_prefix('=')?.trim_start_matches(blank);
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    value[1..].split_once(quote)
}

/// Other encodings that spell ASCII as ASCII do no harm while the document holds nothing else.
fn is_ascii_superset(encoding: &str, text: &str) -> bool {
    let known = ["us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "windows-1252", "latin1"];
    text.is_ascii() && known.iter().any(|name| encoding.eq_ignore_ascii_case(name))
}

fn is_reference(name: &str) -> bool {
    let code = |digits: &str, radix| {
        let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        let parsed = u32::from_str_radix(digits, radix).ok().filter(|_| all_digits);
        parsed.and_then(char::from_u32).is_some_and(is_xml_char)
    };
    match name.strip_prefix('#') {
        Some(hex) if hex.starts_with('x') => code(&hex[1..], 16),
        Some(decimal) => code(decimal, 10),
        None => matches!(name, "amp" | "lt" | "gt" | "quot" | "apos"),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_blank_at(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).copied().is_some_and(is_blank)
}

fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

// XML 1.0, fifth edition, productions 4 and 4a.
fn is_name_start(c: char) -> bool {
    matches!(c, ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}'
        | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}'
        | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}'
        | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}
