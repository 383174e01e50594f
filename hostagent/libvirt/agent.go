package libvirt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

// The guest agent's protocol, as far as it is used. The guest is hostile: it may answer late, never, too much, or rubbish.
const (
	// agentSeconds is what one answer may take.
	agentSeconds = 5
	// maxAnswer is the longest answer that is looked at, bytes.
	maxAnswer = 64 << 10
	// maxWord is the longest word of the guest that is shown, characters.
	maxWord = 64
)

// errGuest: the guest's agent answered, and it was not what was asked for.
var errGuest = hostagent.ErrGuest

// ask sends one command to the guest's agent and reads its answer into reply, which may be nil.
func (h *Host) ask(ctx context.Context, life hostagent.Life, command string, arguments, reply any) error {
	if err := checkLife(life); err != nil {
		return fmt.Errorf("ask guest: %w", err)
	}
	what := fmt.Sprintf("ask guest of %s for %s", life.Desktop, command)
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	line, timeout := h.guests, h.cfg.GuestTimeout
	if life.Build {
		line, timeout = h.builds, buildTimeout
	}
	if wait := h.patience.left(life, time.Now()); wait > 0 {
		return fmt.Errorf("%s: it kept us waiting and is left alone for %v: %w", what, wait.Round(time.Second), hostagent.ErrTimeout)
	}
	answer := make(chan string, 1)
	err = line.do(ctx, timeout, "agent "+life.UID, what, func(c *lv.Connect) error {
		text, err := h.send(c, life, string(request))
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		answer <- text
		return nil
	})
	if err != nil {
		return err
	}
	if err := parseAnswer(<-answer, reply); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// send hands one command to the agent through libvirt. How long that took decides how soon the guest is asked again, even
// when nobody waited for it any more.
func (h *Host) send(c *lv.Connect, life hostagent.Life, request string) (string, error) {
	d, err := find(c, life)
	if err != nil {
		return "", err
	}
	defer free(d)
	seconds := lv.DomainQemuAgentCommandTimeout(agentSeconds)
	if life.Build {
		seconds = buildAgentSeconds
	}
	begun := time.Now()
	text, err := d.QemuAgentCommand(request, seconds, 0)
	if !life.Build {
		h.patience.judge(life, begun, time.Now())
	}
	if errors.Is(err, lv.ERR_AGENT_COMMAND_TIMEOUT) || errors.Is(err, lv.ERR_AGENT_UNSYNCED) {
		return "", fmt.Errorf("%w: %w", err, hostagent.ErrTimeout)
	}
	var refusal lv.Error
	// libvirt looks for an agent's error itself, and has no code of its own for it.
	if errors.As(err, &refusal) && refusal.Code == lv.ERR_INTERNAL_ERROR && strings.Contains(refusal.Message, "unable to execute QEMU agent command") {
		return "", fmt.Errorf("it refused: %s: %w", word(refusal.Message, 256), errGuest)
	}
	return text, err
}

// parseAnswer reads an answer: one JSON object with "return", and nothing else that counts.
func parseAnswer(text string, reply any) error {
	if len(text) > maxAnswer {
		return fmt.Errorf("%d bytes, more than %d: %w", len(text), maxAnswer, errGuest)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("not UTF-8: %w", errGuest)
	}
	var envelope struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&envelope); err != nil {
		return fmt.Errorf("%s: %w", word(err.Error(), 256), errGuest)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return fmt.Errorf("something follows the answer: %w", errGuest)
	}
	if envelope.Error != nil {
		return fmt.Errorf("it refused: %s: %s: %w", word(envelope.Error.Class, maxWord), word(envelope.Error.Desc, 256), errGuest)
	}
	if len(envelope.Return) == 0 || bytes.Equal(envelope.Return, []byte("null")) {
		return fmt.Errorf("no return: %w", errGuest)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(envelope.Return, reply); err != nil {
		return fmt.Errorf("%s: %w", word(err.Error(), 256), errGuest)
	}
	return nil
}

// word makes what a guest says fit to be shown and logged: one line of at most n printable characters. What changes the
// direction of text or hides in it is not printable.
func word(text string, n int) string {
	text = strings.ToValidUTF8(text, "")
	var b strings.Builder
	for _, r := range strings.TrimSpace(text) {
		if r == '\n' || r == '\t' {
			r = ' '
		}
		if !unicode.IsPrint(r) {
			continue
		}
		if n--; n < 0 {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// lines makes output of a guest's program fit to be shown and logged: like word, with its line ends.
func lines(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}

// patience remembers which guests kept us waiting. Each costs libvirtd and us one of few places while we wait, so it is
// asked less and less often until it answers in time.
type patience struct {
	mu     sync.Mutex
	guests map[string]*lateGuest // by desktop's uid; guarded by mu
}

type lateGuest struct {
	until time.Time
	step  time.Duration
}

const (
	// An answer that takes longer than this was waited for.
	slowAnswer = (agentSeconds - 1) * time.Second
	minLeft    = 2 * time.Second
	maxLeft    = 30 * time.Second
)

func newPatience() *patience {
	return &patience{guests: map[string]*lateGuest{}}
}

// left says for how long a guest is still to be left alone.
func (p *patience) left(life hostagent.Life, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.guests[life.UID]; g != nil {
		return g.until.Sub(now)
	}
	return 0
}

// judge takes note of how long an answer, or its absence, took.
func (p *patience) judge(life hostagent.Life, begun, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(begun) < slowAnswer {
		delete(p.guests, life.UID)
		return
	}
	g := p.guests[life.UID]
	if g == nil {
		g = &lateGuest{step: minLeft / 2}
		p.guests[life.UID] = g
	}
	g.step = min(2*g.step, maxLeft)
	g.until = now.Add(g.step)
}

// keepOnly forgets guests that are gone.
func (p *patience) keepOnly(domains []hostagent.Domain) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.guests) == 0 {
		return
	}
	here := map[string]bool{}
	for _, d := range domains {
		here[d.UID] = true
	}
	for uid := range p.guests {
		if !here[uid] {
			delete(p.guests, uid)
		}
	}
}
