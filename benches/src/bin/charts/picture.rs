//! A chart as a file, with the title and the text that the document shows.

pub struct Picture {
    pub file: String,
    pub title: String,
    /// A description of the chart in words.
    pub alt: String,
    pub svg: String,
}

/// Escapes a text so that XML takes it literally.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
