//! A zip archive of uncompressed entries, written by hand so that it can also be
//! written wrongly.

/// An entry as the archive's directory describes it.
pub struct Entry<'a> {
    pub name: &'a str,
    pub data: &'a [u8],
    /// The compression method: 0 for none.
    pub method: u16,
    /// What the directory says of the size.
    pub size: u32,
}

impl<'a> Entry<'a> {
    pub fn new(name: &'a str, data: &'a [u8]) -> Self {
        Self { name, data, method: 0, size: data.len() as u32 }
    }
}

/// The archive's bytes. Checksums are 0, as torch may write them.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut fields = Vec::new();
        fields.extend([20u16, 0, entry.method, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
        fields.extend([0u32, entry.size, entry.size].iter().flat_map(|v| v.to_le_bytes()));
        fields.extend([entry.name.len() as u16, 0].iter().flat_map(|v| v.to_le_bytes()));
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(entry.name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&fields);
        out.extend(entry.name.as_bytes());
        out.extend(entry.data);
    }
    let count = (entries.len() as u16).to_le_bytes();
    let sizes = [directory.len() as u32, out.len() as u32];
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend(sizes.iter().flat_map(|v| v.to_le_bytes()));
    out.extend([0; 2]);
    out
}
