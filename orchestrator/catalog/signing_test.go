package catalog_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"daybreak/images"
	"daybreak/images/sign"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// signed is what the house's publisher says of a content.
func (h house) signed(t *testing.T, image string, manifest []byte) []*v1.Signature {
	t.Helper()
	return []*v1.Signature{word(t, h.key, image, manifest)}
}

func word(t *testing.T, key *sign.Key, image string, manifest []byte) *v1.Signature {
	t.Helper()
	signature, err := key.Sign(image, images.Sum(manifest).String())
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func (h house) setSignatures(t *testing.T, signatures ...*v1.Signature) {
	t.Helper()
	_, err := store.Modify(t.Context(), h.objects, "debian", func(image *v1.Image) error {
		image.GetStatus().GetVersions()[0].Signatures = signatures
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPublishAsksForSignature: what only stands in the store is not published; what is brought again is signed.
func TestPublishAsksForSignature(t *testing.T) {
	h := newHouse(t)
	manifest, _ := h.disk(t, "ab")
	draft := catalog.Draft{Image: "debian", Manifest: manifest}
	if _, _, err := h.intake.CreateVersion(t.Context(), noon(), draft); err != nil {
		t.Fatal(err)
	}
	stranger, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	good := h.signed(t, "debian", manifest)[0]
	for name, signatures := range map[string][]*v1.Signature{
		"none": nil, "a stranger's": {word(t, stranger, "debian", manifest)}, "another image's": h.signed(t, "windows", manifest),
		"another content's": h.signed(t, "debian", []byte("other")),
		"borrowed":          {{Key: good.GetKey(), Signature: word(t, stranger, "debian", manifest).GetSignature()}},
	} {
		h.setSignatures(t, signatures...)
		_, err := h.intake.Publish(t.Context(), noon(), "debian", 1)
		if !errors.Is(err, catalog.ErrRefused) || !errors.Is(err, sign.ErrUntrusted) || !strings.Contains(err.Error(), "import the same disk again") {
			t.Errorf("%s: %v", name, err)
		}
		known, existed, err := h.intake.CreateVersion(t.Context(), noon(), draft)
		if err != nil || !existed || !bytes.Equal(known.GetSignatures()[0].GetSignature(), good.GetSignature()) {
			t.Errorf("%s: brought again: %v, %v", name, known, err)
		}
		if _, err := h.intake.Publish(t.Context(), noon(), "debian", 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOrigin: a version from elsewhere comes in only when somebody trusted published it there, under the name it had there.
func TestOrigin(t *testing.T) {
	h := newHouse(t)
	there, stranger := newKey(t), newKey(t)
	trusted, err := sign.NewPublishers(there.Public())
	if err != nil {
		t.Fatal(err)
	}
	intake, err := catalog.NewIntake(h.objects, h.chunks, h.key, trusted)
	if err != nil {
		t.Fatal(err)
	}
	manifest, _ := h.disk(t, "ab")
	for name, test := range map[string]struct {
		image, origin string
		signatures    []*v1.Signature
		kept          int // signatures afterwards, 0 when it is refused
	}{
		"the same name":     {"debian", "debian", []*v1.Signature{word(t, there, "debian", manifest)}, 2},
		"another name":      {"office", "debian", []*v1.Signature{word(t, there, "debian", manifest)}, 1},
		"our own":           {"home", "home", []*v1.Signature{word(t, h.key, "home", manifest)}, 1},
		"a stranger beside": {"guest", "guest", []*v1.Signature{word(t, stranger, "guest", manifest), word(t, there, "guest", manifest)}, 2},
		"a stranger":        {"bad", "bad", []*v1.Signature{word(t, stranger, "bad", manifest)}, 0},
		"no signature":      {"bad", "bad", nil, 0},
		"no name":           {"bad", "", []*v1.Signature{word(t, there, "bad", manifest)}, 0},
		"the wrong name":    {"bad", "bad", []*v1.Signature{word(t, there, "debian", manifest)}, 0},
		"the wrong content": {"bad", "bad", []*v1.Signature{word(t, there, "bad", []byte("other"))}, 0},
	} {
		v, _, err := intake.CreateVersion(t.Context(), noon(), catalog.Draft{
			Image: test.image, Manifest: manifest, OriginImage: test.origin, OriginSignatures: test.signatures,
		})
		if test.kept == 0 {
			if !errors.Is(err, catalog.ErrRefused) || !strings.Contains(err.Error(), "--trust-publisher-key") {
				t.Errorf("%s: %v, %v", name, v, err)
			}
			continue
		}
		if err != nil || len(v.GetSignatures()) != test.kept || !bytes.Equal(v.GetSignatures()[0].GetKey(), h.key.Public()) {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	if _, err := store.Get[*v1.Image](t.Context(), h.objects, "bad"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what was refused left an image: %v", err)
	}
}

func newKey(t *testing.T) *sign.Key {
	t.Helper()
	key, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
