//! Streams that are encrypted and decrypted in pieces, whole and damaged.

use age::x25519::Identity;
use secrecy::ExposeSecret;
use tokio::io::AsyncReadExt;

use super::*;

/// Bytes that repeat nowhere near each other.
fn plain(length: usize) -> Vec<u8> {
    let numbers = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes());
    numbers.take(length).collect()
}

/// `source` encrypted to the keys of `identities`.
async fn encrypt(source: &[u8], identities: &[&Identity]) -> (Vec<u8>, Encryption) {
    let recipients: Vec<AgeRecipient> = identities.iter().map(|it| it.to_public()).collect();
    let mut encrypting = Encrypting::new(source, &recipients);
    let mut encrypted = Vec::new();
    encrypting.read_to_end(&mut encrypted).await.unwrap();
    (encrypted, encrypting.finish())
}

/// What comes out of `encrypted` in pieces of `size` bytes, or why nothing does.
fn decrypt(
    encrypted: &[u8],
    size: usize,
    identity: &Identity,
) -> Result<(Vec<u8>, Decrypting), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), identity.to_string().expose_secret()).unwrap();
    let Ok(identities) = Identities::read(file.path()) else {
        panic!("the identity is not read");
    };
    let mut decrypting = Decrypting::new(identities);
    let mut plain = Vec::new();
    let pieces = encrypted.chunks(size).map(Some);
    for piece in pieces.chain([None]) {
        plain.extend(decrypting.take(piece)?);
        let held = decrypting.encrypted.lock().len();
        assert!(held < CHUNK + TAG + size, "{held} bytes are held");
    }
    Ok((plain, decrypting))
}

#[tokio::test]
async fn what_was_encrypted_is_decrypted_by_each_of_the_recipients() {
    let (one, other) = (Identity::generate(), Identity::generate());
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5] {
        let source = plain(length);
        let (encrypted, encryption) = encrypt(&source, &[&one, &other]).await;
        let recipients = [&one, &other].map(|it| it.to_public().to_string());
        assert_eq!(encryption.age_recipients, recipients);
        assert_eq!(encryption.plain_bytes, length as u64);
        assert!(length < 8 || !encrypted.windows(8).any(|it| it == &source[..8]));
        for (size, identity) in [(1, &one), (37, &other), (CHUNK, &one), (1 << 20, &other)] {
            let (decrypted, decrypting) = decrypt(&encrypted, size, identity).unwrap();
            assert_eq!(decrypted, source, "{length} bytes in pieces of {size}");
            assert_eq!(decrypting.judge(&encryption), Ok(()));
        }
    }
}

#[tokio::test]
async fn every_kind_of_damage_is_found_and_none_is_taken_for_a_wrong_key() {
    let own = Identity::generate();
    let source = plain(2 * CHUNK + 9);
    let (whole, encryption) = encrypt(&source, &[&own]).await;
    let header = whole.len() - source.len() - 3 * TAG;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    // Of base64, so that the header can still be read.
    let another_letter = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        bytes
    };
    let cut = |length: usize| whole[..length].to_vec();
    let with = |more: &[u8]| [&whole[..], more].concat();
    let last_chunk = header + 2 * (CHUNK + TAG);
    for (what, bytes, words) in [
        ("no header", flipped(0), "no header of age"),
        ("another version", flipped(20), "no header of age"),
        ("the wrapped key", flipped(90), "header"),
        (
            "the header's MAC",
            another_letter(header - 24),
            "its header is damaged",
        ),
        ("the nonce", flipped(header - 3), "byte 0 is not authentic"),
        (
            "the first chunk",
            flipped(header + 5),
            "byte 0 is not authentic",
        ),
        (
            "the last chunk",
            flipped(whole.len() - 1),
            "byte 131072 is not authentic",
        ),
        ("empty", cut(0), "cut off in its header"),
        ("cut in the header", cut(100), "cut off in its header"),
        ("cut behind the header", cut(header), "it is cut off"),
        (
            "cut in a chunk",
            cut(header + 100),
            "byte 0 is not authentic",
        ),
        ("cut between chunks", cut(last_chunk), "it is cut off"),
        (
            "cut by a byte",
            cut(whole.len() - 1),
            "byte 131072 is not authentic",
        ),
        (
            "something behind it",
            with(b"x"),
            "byte 131072 is not authentic",
        ),
        ("twice", with(&whole), "is not authentic"),
    ] {
        for size in [50, CHUNK, 1 << 20] {
            let error = decrypt(&bytes, size, &own).err();
            let error = error.unwrap_or_else(|| panic!("{what} was not found"));
            assert!(error.contains(words), "{what}: {error}");
        }
    }
    // Whole and authentic, and not what was dumped.
    let (other, _) = encrypt(&plain(2 * CHUNK + 8), &[&own]).await;
    let (_, decrypting) = decrypt(&other, CHUNK, &own).unwrap();
    let error = decrypting.judge(&encryption).unwrap_err();
    assert!(
        error.contains("131080 bytes decrypted, its manifest says 131081"),
        "{error}"
    );
    // A last chunk that is full: something behind it could be another chunk.
    let (full, _) = encrypt(&plain(2 * CHUNK), &[&own]).await;
    assert!(decrypt(&full, CHUNK, &own).is_ok());
    for more in [&b"x"[..], &full] {
        let error = decrypt(&[&full[..], more].concat(), CHUNK, &own).err();
        let error = error.expect("something behind the end was not found");
        assert!(error.contains("is not authentic"), "{error}");
    }
    // A header without an end, in more pieces than would be read again from the first byte each time.
    let endless = [
        &b"age-encryption.org/v1\n-> X "[..],
        &[b'A'; 4 * LONGEST_HEADER],
    ]
    .concat();
    for size in [1, 50] {
        let error = decrypt(&endless, size, &own).err().expect("no header");
        assert!(error.contains("no header of age"), "{error}");
    }
}
