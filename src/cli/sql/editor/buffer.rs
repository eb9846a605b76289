//! The text that is edited, and where in it the cursor is. It knows no terminal.

/// Text of one or several lines with a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    text: Vec<char>,
    /// Characters before the cursor.
    cursor: usize,
    /// What was cut last.
    cut: Vec<char>,
}

impl Buffer {
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    pub fn chars(&self) -> &[char] {
        &self.text
    }

    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Bytes before the cursor.
    pub fn cursor_bytes(&self) -> usize {
        self.text[..self.cursor].iter().map(|character| character.len_utf8()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Another text, with the cursor at its end.
    pub fn set(&mut self, text: &str) {
        self.text = text.chars().collect();
        self.cursor = self.text.len();
    }

    pub fn insert(&mut self, text: &str) {
        let characters: Vec<char> = text.chars().collect();
        let count = characters.len();
        self.text.splice(self.cursor..self.cursor, characters);
        self.cursor += count;
    }

    /// Text in place of what stands from a byte up to the cursor.
    pub fn replace_from(&mut self, start: usize, text: &str) {
        let mut bytes = 0;
        let start = self.text.iter().take_while(|character| {
            bytes += character.len_utf8();
            bytes <= start
        });
        let start = start.count().min(self.cursor);
        self.text.drain(start..self.cursor);
        self.cursor = start;
        self.insert(text);
    }

    pub fn left(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    pub fn right(&mut self) {
        self.cursor = (self.cursor + 1).min(self.text.len());
    }

    /// Where the cursor's line begins and ends.
    fn line(&self) -> (usize, usize) {
        let start = self.text[..self.cursor].iter().rposition(|&character| character == '\n');
        let end = self.text[self.cursor..].iter().position(|&character| character == '\n');
        (start.map_or(0, |at| at + 1), end.map_or(self.text.len(), |at| self.cursor + at))
    }

    pub fn home(&mut self) {
        self.cursor = self.line().0;
    }

    pub fn end(&mut self) {
        self.cursor = self.line().1;
    }

    /// To the line above; false if there is none.
    pub fn up(&mut self) -> bool {
        let (start, _) = self.line();
        let column = self.cursor - start;
        if start == 0 {
            return false;
        }
        self.cursor = start - 1;
        let (above, end) = self.line();
        self.cursor = (above + column).min(end);
        true
    }

    /// To the line below; false if there is none.
    pub fn down(&mut self) -> bool {
        let (start, end) = self.line();
        let column = self.cursor - start;
        if end == self.text.len() {
            return false;
        }
        self.cursor = end + 1;
        let (below, end) = self.line();
        self.cursor = (below + column).min(end);
        true
    }

    fn word_before(&self) -> usize {
        let is_word = |at: usize| self.text[at].is_alphanumeric() || self.text[at] == '_';
        let mut at = self.cursor;
        while at > 0 && !is_word(at - 1) {
            at -= 1;
        }
        while at > 0 && is_word(at - 1) {
            at -= 1;
        }
        at
    }

    fn word_after(&self) -> usize {
        let is_word = |at: usize| self.text[at].is_alphanumeric() || self.text[at] == '_';
        let mut at = self.cursor;
        while at < self.text.len() && !is_word(at) {
            at += 1;
        }
        while at < self.text.len() && is_word(at) {
            at += 1;
        }
        at
    }

    pub fn word_left(&mut self) {
        self.cursor = self.word_before();
    }

    pub fn word_right(&mut self) {
        self.cursor = self.word_after();
    }

    pub fn backspace(&mut self) {
        if self.cursor > 0 {
            self.cursor -= 1;
            self.text.remove(self.cursor);
        }
    }

    pub fn delete(&mut self) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        if from < to {
            self.cut = self.text.drain(from..to).collect();
            self.cursor = from;
        }
    }

    pub fn cut_word_before(&mut self) {
        self.cut(self.word_before(), self.cursor);
    }

    /// As far as a space, as Ctrl-W does.
    pub fn cut_to_space(&mut self) {
        let mut at = self.cursor;
        while at > 0 && self.text[at - 1].is_whitespace() {
            at -= 1;
        }
        while at > 0 && !self.text[at - 1].is_whitespace() {
            at -= 1;
        }
        self.cut(at, self.cursor);
    }

    pub fn cut_word_after(&mut self) {
        self.cut(self.cursor, self.word_after());
    }

    pub fn cut_to_end(&mut self) {
        let (_, end) = self.line();
        // At its end, the line break: two lines become one.
        let end = if end == self.cursor { (end + 1).min(self.text.len()) } else { end };
        self.cut(self.cursor, end);
    }

    pub fn cut_to_start(&mut self) {
        self.cut(self.line().0, self.cursor);
    }

    /// What was cut last comes back.
    pub fn paste_cut(&mut self) {
        let text: String = self.cut.iter().collect();
        self.insert(&text);
    }

    /// The two characters before the cursor change places.
    pub fn swap(&mut self) {
        if self.cursor > 0 && self.text.len() > 1 {
            let right = self.cursor.min(self.text.len() - 1).max(1);
            self.text.swap(right - 1, right);
            self.cursor = right + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(text: &str) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.set(text);
        buffer
    }

    #[test]
    fn lines_are_gone_over_up_and_down() {
        let mut buffer = buffer("abc\nde\nfghi");
        assert!(buffer.up());
        assert_eq!(buffer.cursor(), 6, "the line is shorter");
        assert!(buffer.up());
        assert_eq!(buffer.cursor(), 2);
        assert!(!buffer.up());
        assert!(buffer.down() && buffer.down() && !buffer.down());
        buffer.home();
        assert_eq!(buffer.cursor(), 7);
        buffer.backspace();
        assert_eq!(buffer.text(), "abc\ndefghi");
    }

    #[test]
    fn words_are_cut_and_come_back() {
        let mut buffer = buffer("select größe, b_1");
        buffer.cut_word_before();
        assert_eq!(buffer.text(), "select größe, ");
        buffer.cut_to_space();
        assert_eq!(buffer.text(), "select ");
        buffer.paste_cut();
        assert_eq!(buffer.text(), "select größe, ");
        buffer.word_left();
        buffer.cut_to_end();
        assert_eq!(buffer.text(), "select ");
        buffer.cut_to_start();
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_completion_takes_the_place_of_what_was_begun() {
        let mut buffer = buffer("ö sel");
        assert_eq!(buffer.cursor_bytes(), 6);
        buffer.replace_from(3, "SELECT ");
        assert_eq!(buffer.text(), "ö SELECT ");
    }
}
