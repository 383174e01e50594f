package libvirt

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"daybreak/hostagent"
)

func TestParseAnswer(t *testing.T) {
	var reply struct {
		PID *int64 `json:"pid"`
	}
	if err := parseAnswer(`{"return":{"pid":7,"new-in-some-release":[]}}`, &reply); err != nil || reply.PID == nil || *reply.PID != 7 {
		t.Errorf("a good answer: %v, %v", reply.PID, err)
	}
	if err := parseAnswer(`{"return":{"pid":1},"return":{"pid":8,"pid":9}}`, &reply); err != nil || *reply.PID != 9 {
		t.Errorf("the same keys twice: %v, %v", *reply.PID, err)
	}
	if err := parseAnswer(` {"return":{}} `, nil); err != nil {
		t.Errorf("a ping's answer: %v", err)
	}
	for name, text := range map[string]string{
		"nothing": "", "half": `{"return":{"pid"`, "no object": `[]`, "no return": `{}`, "null": `{"return":null}`,
		"two answers": `{"return":{}}{"return":{}}`, "rubbish behind": `{"return":{}} x`, "other type": `{"return":{"pid":"seven"}}`,
		"fraction": `{"return":{"pid":1.5}}`, "huge number": `{"return":{"pid":1e400}}`, "beyond int64": `{"return":{"pid":9223372036854775808}}`,
		"bytes of no text": "{\"return\":{\"x\":\"\xff\xff\"}}", "too long": `{"return":{"x":"` + strings.Repeat("x", maxAnswer) + `"}}`,
		"10 MiB in one line": `{"return":{"pid":` + strings.Repeat("7", 10<<20) + `}}`, "flood of 0xff": strings.Repeat("\xff", 1<<20),
		"digits": `{"return":{"pid":` + strings.Repeat("9", 5000) + `}}`, "error and return": `{"return":{"pid":7},"error":{"class":"x"}}`,
		"cut off": `{"return":{"pid":7`, "NUL": "{\"return\":{\"x\":\"\x00\"}}", "spaces": `{"return":{}}` + strings.Repeat(" ", maxAnswer),
		"deep where unknown": `{"return":{"pid":7,"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`,
		"deep":               `{"return":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
		"refusal":            `{"error":{"class":"CommandNotFound","desc":"the command \u001b[31mguest-exec\u202e has been disabled"}}`,
	} {
		err := parseAnswer(text, &reply)
		if !errors.Is(err, errGuest) {
			t.Errorf("%s: %v, want errGuest", name, err)
			continue
		}
		if len(err.Error()) > 1024 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: the error is too long, or carries the guest's control characters: %.2000q", name, err)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(`{"return":[{"name":"eth0","ip-addresses":[{"ip-address":"10.0.0.1"}]}]}`)
	f.Add(`{"error":{"class":"GenericError","desc":"x"}}`)
	f.Add(`{"return":{"exited":true,"exitcode":0,"out-data":"aGk="}}`)
	f.Add(`{"return":{"exited":true,"signal":-128}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var interfaces []guestInterface
		if parseAnswer(text, &interfaces) == nil {
			if all := addresses(interfaces); len(all) > maxAddresses {
				t.Errorf("%d addresses", len(all))
			}
		}
		var status execStatus
		if parseAnswer(text, &status) == nil {
			code, out, err := status.result()
			if err == nil && (code < 0 || code == 0 && status.Signal != 0 || len(out) > maxOutput || !utf8.ValidString(out)) {
				t.Errorf("status %d, output %q", code, out)
			}
		}
		if w := word(text, maxWord); utf8.RuneCountInString(w) > maxWord || strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("word %q", w)
		}
	})
}

func TestWord(t *testing.T) {
	for text, want := range map[string]string{
		"micro-1\n": "micro-1", "a\x00b\x1b[31mc": "ab[31mc", "\u202egnp.exe": "gnp.exe", "総務課 パソコン": "総務課 パソコン",
		"\xff\xfe": "", "one\ntwo\tthree": "one two three", strings.Repeat("長", 100): strings.Repeat("長", maxWord), "  ": "",
	} {
		if got := word(text, maxWord); got != want {
			t.Errorf("word(%q) = %q, want %q", text, got, want)
		}
	}
	if got := lines("a\nb\x1b\u2028\r\xffc\n"); got != "a\nbc\n" {
		t.Errorf("lines = %q", got)
	}
}

func TestAddresses(t *testing.T) {
	var interfaces []guestInterface
	answer := `[{"name":"lo","ip-addresses":[{"ip-address":"127.0.0.1"},{"ip-address":"::1"}]},{"name":"none"},
		{"name":"eth0","ip-addresses":[{"ip-address":"010.0.0.1"},{"ip-address":"fe80::1%eth0"},{"ip-address":"fe80::1"},{"ip-address":"2001:DB8::0:1"},
		{"ip-address":"::ffff:192.0.2.7"},{"ip-address":"10.0.0.5; rm -rf /"},{"ip-address":"224.0.0.1"},{"ip-address":"10.9.8.7"}]}]`
	if err := json.Unmarshal([]byte(answer), &interfaces); err != nil {
		t.Fatal(err)
	}
	if got, want := addresses(interfaces), []string{"2001:db8::1", "192.0.2.7", "10.9.8.7"}; !reflect.DeepEqual(got, want) {
		t.Errorf("addresses = %q, want %q", got, want)
	}
	many := make([]guestInterface, 100_000)
	for i := range many {
		many[i] = interfaces[2]
	}
	if got := addresses(many); len(got) != 3 {
		t.Errorf("%d addresses of a guest that lists three 100 000 times", len(got))
	}
	type listed = struct {
		Address string `json:"ip-address"`
	}
	one := guestInterface{}
	for i := range 100_000 {
		one.Addresses = append(one.Addresses, listed{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)})
	}
	if got := addresses([]guestInterface{one}); len(got) != maxAddresses {
		t.Errorf("%d addresses of a guest that lists 100 000", len(got))
	}
	for _, bad := range []string{"", "0.0.0.0", "::", "255.255.255.255", "169.254.1.1", "::ffff:127.0.0.1", "192.0.2.7/24", "\u0661.1.1.1", "192.0.2.7\n", "2001:db8::7%\x1b[2J"} {
		if got := addresses([]guestInterface{{Addresses: []listed{{bad}}}}); len(got) != 0 {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestExecResult(t *testing.T) {
	for name, c := range map[string]struct {
		in     execStatus
		status int
		output string
	}{
		"ok":            {execStatus{ExitCode: 0, Out: "aGkK", Err: "ZXJyCg=="}, 0, "hi\nerr\n"},
		"fails":         {execStatus{ExitCode: 3}, 3, ""},
		"killed":        {execStatus{Signal: 9}, 137, ""},
		"much":          {execStatus{Out: strings.Repeat("YWFh", 4000)}, 0, strings.Repeat("a", maxOutput)},
		"cut in a rune": {execStatus{Out: "44E="}, 0, ""},
		"control bytes": {execStatus{Out: "GwBh"}, 0, "a"},
		"exception":     {execStatus{Signal: 0xC0000005}, 0xC0000005 + 128, ""},
	} {
		status, output, err := c.in.result()
		if err != nil || status != c.status || output != c.output {
			t.Errorf("%s: %d, %q, %v; want %d, %q", name, status, output, err, c.status, c.output)
		}
	}
	for name, bad := range map[string]execStatus{
		"no base64": {Out: "!"}, "errors no base64": {Err: "a"}, "negative": {ExitCode: -1}, "absurd": {ExitCode: 1 << 40},
		"a signal that makes 0": {Signal: -128}, "a signal that overflows": {Signal: math.MaxInt},
	} {
		if status, _, err := bad.result(); !errors.Is(err, errGuest) {
			t.Errorf("%s: status %d, %v", name, status, err)
		}
	}
}

func TestPatience(t *testing.T) {
	p, life, now := newPatience(), machine().Life, time.Unix(1_700_000_000, 0)
	var waits []time.Duration
	for range 6 {
		p.judge(life, now, now.Add(agentSeconds*time.Second))
		now = now.Add(agentSeconds * time.Second)
		waits = append(waits, p.left(life, now))
		now = now.Add(waits[len(waits)-1])
		if left := p.left(life, now); left != 0 {
			t.Errorf("%v left after all was waited", left)
		}
	}
	want := []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}
	if !reflect.DeepEqual(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	p.judge(life, now, now.Add(time.Second))
	if left := p.left(life, now); left != 0 {
		t.Errorf("%v left after it answered in time", left)
	}
	p.judge(life, now, now.Add(time.Minute))
	p.keepOnly([]hostagent.Domain{{Life: life}})
	if p.left(life, now) == 0 {
		t.Error("forgotten while it is there")
	}
	p.keepOnly(nil)
	if len(p.guests) != 0 {
		t.Error("not forgotten when it is gone")
	}
}
