package jointoken_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"daybreak/proto/jointoken"
)

func newToken(t testing.TB) jointoken.Token {
	t.Helper()
	token, err := jointoken.New(rand.Reader, []byte("the CA"))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestRoundTrip(t *testing.T) {
	token := newToken(t)
	got, err := jointoken.Parse("  " + token.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got != token {
		t.Errorf("read %+v, wrote %+v", got, token)
	}
	if got.CADigest != sha256.Sum256([]byte("the CA")) {
		t.Error("the digest is not the CA's")
	}
}

func TestTokensDiffer(t *testing.T) {
	a, b := newToken(t), newToken(t)
	if a.ID == b.ID || a.Secret == b.Secret {
		t.Error("two tokens share a part")
	}
	if _, err := jointoken.New(bytes.NewReader(make([]byte, 8)), nil); err == nil {
		t.Error("a token was made without enough randomness")
	}
}

func TestMatches(t *testing.T) {
	a, b := newToken(t), newToken(t)
	if !a.Matches(a.SecretHash()) {
		t.Error("a secret does not match its own hash")
	}
	if a.Matches(b.SecretHash()) || a.Matches(nil) || a.Matches(a.SecretHash()[:31]) {
		t.Error("a secret matches what is not its hash")
	}
}

func TestParseRefuses(t *testing.T) {
	good := newToken(t).String()
	parts := strings.Split(good, ".")
	with := func(i int, part string) string {
		changed := append([]string(nil), parts...)
		changed[i] = part
		return strings.Join(changed, ".")
	}
	cases := map[string]string{
		"empty":                  "",
		"another version":        with(0, "dbk2"),
		"upper-case digest":      with(1, strings.Repeat("AB", 32)),
		"short digest":           with(1, parts[1][:62]),
		"empty id":               with(2, ""),
		"id that is a path":      with(2, "../../../../etc/"),
		"upper-case id":          with(2, strings.ToUpper(parts[2])),
		"secret cut off":         good[:len(good)-1],
		"secret with padding":    good + "=",
		"secret with other bits": with(3, parts[3][:len(parts[3])-1]+"b"),
		"a fifth part":           good + ".x",
		"line break inside":      with(3, parts[3][:10]+"\n"+parts[3][11:]),
		"far too long":           strings.Repeat("a", 1<<20),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			token, err := jointoken.Parse(text)
			if !errors.Is(err, jointoken.ErrMalformed) {
				t.Fatalf("got %v, %v; want ErrMalformed", token, err)
			}
			if strings.Contains(err.Error(), parts[3][:20]) {
				t.Error("the error repeats the secret")
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("dbk1." + strings.Repeat("0", 64) + "." + strings.Repeat("a", 16) + "." + strings.Repeat("a", 52))
	f.Add("dbk1...")
	f.Add("K10abc::server:secret")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := jointoken.Parse(text)
		if err != nil {
			return
		}
		if token.String() != strings.TrimSpace(text) {
			t.Errorf("%q was read as a token that is written %q", text, token)
		}
	})
}
