//! Rotation: old ciphertexts go on opening, say that they are stale, and can be moved.

use anyhow::Result;
use kms_tests::request::*;
use tonic::Code;

use crate::{ACME, ACME_KEY, World, refused};

const CONTEXT: &[(&str, &str)] = &[("row", "7")];

#[tokio::test]
async fn old_ciphertexts_open_as_stale_until_they_are_moved() -> Result<()> {
    let world = World::new().await?;
    let app = &world.app;
    let (mut blobs, mut wrapped) = (Vec::new(), Vec::new());
    for version in 1..=4_u32 {
        if version > 1 {
            let rotated = world.admin.ask(rotate_key(ACME_KEY)).await?.key.unwrap();
            assert_eq!(rotated.primary_version, version);
        }
        let sealed = app.ask(encrypt(ACME_KEY, &version.to_be_bytes(), CONTEXT)).await?;
        assert_eq!(sealed.key_version, version);
        blobs.push(sealed.ciphertext);
        wrapped.push(app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?);
    }
    for (version, (blob, data_key)) in (1_u32..).zip(blobs.iter().zip(&wrapped)) {
        let opened = app.ask(decrypt(ACME_KEY, blob, CONTEXT)).await?;
        assert_eq!(
            (opened.plaintext, opened.key_version, opened.stale),
            (version.to_be_bytes().to_vec(), version, version < 4)
        );
        let unwrapped = app.ask(decrypt_data_key(ACME_KEY, &data_key.wrapped_data_key, CONTEXT)).await?;
        assert_eq!((&unwrapped.plaintext, unwrapped.stale), (&data_key.plaintext, version < 4));

        let moved = app.ask(re_encrypt(ACME_KEY, blob, CONTEXT)).await?;
        assert_eq!((moved.key_version, moved.source_key_version, moved.ciphertext.len()), (4, version, blob.len()));
        let opened = app.ask(decrypt(ACME_KEY, &moved.ciphertext, CONTEXT)).await?;
        assert_eq!((opened.plaintext, opened.stale), (version.to_be_bytes().to_vec(), false));
        let moved = app.ask(re_encrypt(ACME_KEY, &data_key.wrapped_data_key, CONTEXT)).await?;
        let unwrapped = app.ask(decrypt_data_key(ACME_KEY, &moved.ciphertext, CONTEXT)).await?;
        assert_eq!((&unwrapped.plaintext, unwrapped.stale), (&data_key.plaintext, false));
        // Moving leaves the old one as it was.
        assert!(app.ask(decrypt(ACME_KEY, blob, CONTEXT)).await.is_ok());
    }
    world.finish().await
}

#[tokio::test]
async fn a_ciphertext_moves_to_another_key_or_context_and_a_data_key_only_to_another_key() -> Result<()> {
    let world = World::new().await?;
    let app = &world.app;
    world.admin.ask(create_key(ACME, "other")).await?;
    let other_key = "tenants/acme/keys/other";
    let elsewhere: &[(&str, &str)] = &[("row", "8")];

    let blob = app.ask(encrypt(ACME_KEY, b"moves", CONTEXT)).await?.ciphertext;
    let moved = app.ask(move_to(ACME_KEY, &blob, CONTEXT, other_key, elsewhere)).await?.ciphertext;
    assert_eq!(app.ask(decrypt(other_key, &moved, elsewhere)).await?.plaintext, b"moves");
    for (key, context) in [(ACME_KEY, elsewhere), (other_key, CONTEXT), (ACME_KEY, CONTEXT)] {
        refused(Code::InvalidArgument, "DECRYPT_FAILED", app.ask(decrypt(key, &moved, context)).await);
    }
    // Nothing is taken over from the source: no context is an empty one.
    let bare = app.ask(move_to(ACME_KEY, &blob, CONTEXT, ACME_KEY, &[])).await?.ciphertext;
    assert_eq!(app.ask(decrypt(ACME_KEY, &bare, &[])).await?.plaintext, b"moves");

    let data_key = app.ask(generate_data_key(ACME_KEY, CONTEXT)).await?;
    let moved = app.ask(move_to(ACME_KEY, &data_key.wrapped_data_key, CONTEXT, other_key, CONTEXT)).await?.ciphertext;
    assert_eq!(app.ask(decrypt_data_key(other_key, &moved, CONTEXT)).await?.plaintext, data_key.plaintext);
    let refusal = app.ask(move_to(ACME_KEY, &data_key.wrapped_data_key, CONTEXT, other_key, elsewhere)).await;
    refused(Code::InvalidArgument, "CONTEXT_INVALID", refusal);
    world.finish().await
}
