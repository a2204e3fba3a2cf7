//! A chart as a file, and as the document shows it.

pub struct Picture {
    pub file: String,
    pub title: String,
    /// What it shows, in words.
    pub alt: String,
    pub svg: String,
}

/// Text of which nothing is taken for XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
