package sign_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"daybreak/images"
	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

func newKey(t testing.TB) *sign.Key {
	t.Helper()
	key, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func trust(t testing.TB, keys ...*sign.Key) *sign.Publishers {
	t.Helper()
	var public []ed25519.PublicKey
	for _, key := range keys {
		public = append(public, key.Public())
	}
	publishers, err := sign.NewPublishers(public...)
	if err != nil {
		t.Fatal(err)
	}
	return publishers
}

func word(t testing.TB, key *sign.Key, image, digest string) *v1.Signature {
	t.Helper()
	signature, err := key.Sign(image, digest)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

var (
	one = images.Sum([]byte("one")).String()
	two = images.Sum([]byte("two")).String()
)

func TestCheck(t *testing.T) {
	ours, theirs := newKey(t), newKey(t)
	good, foreign := word(t, ours, "debian", one), word(t, theirs, "debian", one)
	borrowed := &v1.Signature{Key: ours.Public(), Signature: foreign.GetSignature()}
	for name, test := range map[string]struct {
		trusted    *sign.Publishers
		image      string
		digest     string
		signatures []*v1.Signature
		want       string // empty when it holds
	}{
		"signed":               {trust(t, ours), "debian", one, []*v1.Signature{good}, ""},
		"signed by one of two": {trust(t, ours), "debian", one, []*v1.Signature{foreign, good}, ""},
		"one bad one good":     {trust(t, ours), "debian", one, []*v1.Signature{borrowed, good}, ""},
		"nobody checks":        {nil, "debian", one, nil, ""},
		"nobody is trusted":    {trust(t), "debian", one, []*v1.Signature{good}, "signed by publisher " + sign.Fingerprint(ours.Public())},
		"nobody signed":        {trust(t, ours), "debian", one, nil, "nobody signed it"},
		"a stranger signed":    {trust(t, ours), "debian", one, []*v1.Signature{foreign}, "signed by publisher " + sign.Fingerprint(theirs.Public())},
		"borrowed signature":   {trust(t, ours), "debian", one, []*v1.Signature{borrowed}, "is not for this content"},
		"another name":         {trust(t, ours), "debian2", one, []*v1.Signature{good}, "is not for this content"},
		"another content":      {trust(t, ours), "debian", two, []*v1.Signature{good}, "is not for this content"},
		"a name of two lines":  {trust(t, ours), "debian\n" + one, two, []*v1.Signature{good}, "not the name of an image"},
		"no digest":            {trust(t, ours), "debian", "", []*v1.Signature{good}, "hex digits"},
		"capital digest":       {trust(t, ours), "debian", strings.ToUpper(one), []*v1.Signature{good}, "hex digits"},
		"empty signature":      {trust(t, ours), "debian", one, []*v1.Signature{{}}, "signed by publisher"},
		"short signature":      {trust(t, ours), "debian", one, []*v1.Signature{{Key: ours.Public(), Signature: good.GetSignature()[:63]}}, "is not for"},
		"nil signature":        {trust(t, ours), "debian", one, []*v1.Signature{nil}, "signed by publisher"},
		"beyond the fourth":    {trust(t, ours), "debian", one, []*v1.Signature{foreign, foreign, foreign, foreign, good}, "signed by publisher"},
	} {
		err := test.trusted.Check(test.image, test.digest, test.signatures)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (!errors.Is(err, sign.ErrUntrusted) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestStatement: the words that are signed are part of the wire; other programs make and check signatures too.
func TestStatement(t *testing.T) {
	key, err := sign.ParseKey([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(key.Public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"; got != want {
		t.Fatalf("public key %s, RFC 8032 says %s", got, want)
	}
	signature := word(t, key, "debian", one)
	text := []byte("daybreak image version 1\ndebian\n" + one)
	if !ed25519.Verify(signature.GetKey(), text, signature.GetSignature()) {
		t.Error("another text was signed")
	}
	for _, image := range []string{"", "Debian", "a\nb", "-a", strings.Repeat("a", 64), "a/b"} {
		if _, err := key.Sign(image, one); !errors.Is(err, sign.ErrName) {
			t.Errorf("signed for image %q: %v", image, err)
		}
	}
	if _, err := key.Sign("debian", one[1:]); !errors.Is(err, images.ErrInvalid) {
		t.Errorf("signed for half a digest: %v", err)
	}
}

// TestEveryBit: whatever bit of key, signature, name or digest is another, it does not hold.
func TestEveryBit(t *testing.T) {
	key := newKey(t)
	trusted, good := trust(t, key), word(t, key, "debian", one)
	for _, part := range [][]byte{good.GetKey(), good.GetSignature()} {
		for bit := range len(part) * 8 {
			bad := proto.CloneOf(good)
			if len(part) == 32 {
				bad.Key[bit/8] ^= 1 << (bit % 8)
			} else {
				bad.Signature[bit/8] ^= 1 << (bit % 8)
			}
			if trusted.Check("debian", one, []*v1.Signature{bad}) == nil {
				t.Errorf("bit %d of %d bytes flipped, and it holds", bit, len(part))
			}
		}
	}
}

func TestMakeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "publisher.key")
	if _, err := sign.ReadKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read nothing: %v", err)
	}
	first, made, err := sign.MakeKey(path)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	again, made, err := sign.MakeKey(path)
	if err != nil || made || !bytes.Equal(first.Public(), again.Public()) {
		t.Errorf("made anew: %v, %v", made, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("debris: %v", left)
	}
	if _, _, err := sign.MakeKey(filepath.Join(t.TempDir(), "nowhere", "key")); err == nil {
		t.Error("made where there is no directory")
	}
}

// TestMakeKeyTogether: of several that start at once on one directory all have the same key.
func TestMakeKeyTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "publisher.key")
	var group sync.WaitGroup
	keys := make([]*sign.Key, 8)
	for i := range keys {
		group.Go(func() {
			key, _, err := sign.MakeKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	group.Wait()
	for _, key := range keys {
		if key == nil || !bytes.Equal(key.Public(), keys[0].Public()) {
			t.Error("two keys")
		}
	}
}

// TestKeyFilesRefused: whatever is wrong with a file, no new key is made over it.
func TestKeyFilesRefused(t *testing.T) {
	public, err := sign.PublicPEM(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good")
	if _, _, err := sign.MakeKey(good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text []byte
		mode os.FileMode
	}{
		"empty":      {nil, 0o600},
		"cut off":    {text[:len(text)/2], 0o600},
		"public key": {public, 0o600},
		"two keys":   {append(bytes.Clone(text), text...), 0o600},
		"readable":   {text, 0o644},
		"huge":       {append(bytes.Clone(text), make([]byte, 64<<10)...), 0o600},
	} {
		path := filepath.Join(t.TempDir(), "publisher.key")
		if err := os.WriteFile(path, test.text, test.mode); err != nil {
			t.Fatal(err)
		}
		if _, _, err := sign.MakeKey(path); !errors.Is(err, sign.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, test.text) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestReadPublishers(t *testing.T) {
	a, b := newKey(t), newKey(t)
	var both []byte
	for _, key := range []*sign.Key{a, b} {
		text, err := sign.PublicPEM(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, append([]byte("publisher "+sign.Fingerprint(key.Public())+"\n"), text...)...)
	}
	path := filepath.Join(t.TempDir(), "publishers.pem")
	if err := os.WriteFile(path, both, 0o644); err != nil {
		t.Fatal(err)
	}
	publishers, err := sign.ReadPublishers(path, path)
	if err != nil || len(publishers.Keys()) != 2 {
		t.Fatalf("%v, %v", publishers, err)
	}
	for _, key := range []*sign.Key{a, b} {
		if err := publishers.Check("debian", one, []*v1.Signature{word(t, key, "debian", one)}); err != nil {
			t.Error(err)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "zero key": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n",
		"certificate": "-----BEGIN CERTIFICATE-----\nMCowBQYDK2VwAyEA\n-----END CERTIFICATE-----\n",
		"private key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n",
	} {
		if _, err := sign.ParsePublic([]byte(text)); !errors.Is(err, sign.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := sign.ReadPublishers(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// FuzzKeys: whatever text it is, a key that comes out of it can be written and read back.
func FuzzKeys(f *testing.F) {
	key := newKey(f)
	public, err := sign.PublicPEM(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(public)
	f.Add(append([]byte("words before\n"), append(public, public...)...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if private, err := sign.ParseKey(text); err == nil {
			if err := trust(t, private).Check("a", one, []*v1.Signature{word(t, private, "a", one)}); err != nil {
				t.Error(err)
			}
		}
		keys, err := sign.ParsePublic(text)
		if err != nil {
			return
		}
		for _, key := range keys {
			again, err := sign.PublicPEM(key)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := sign.ParsePublic(again); err != nil || len(back) != 1 || !bytes.Equal(back[0], key) {
				t.Errorf("read back %v, %v", back, err)
			}
		}
	})
}
