package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"daybreak/hostagent"
)

// What the guest helper writes, in our images and by our recipe for Windows: "SECONDS IDLE", when it wrote this by the guest's
// clock, in seconds since 1970, and for how many seconds nobody had touched keyboard or pointer then.
const (
	inputIdleFile        = "/run/daybreak/input-idle"
	inputIdleFileWindows = `C:\ProgramData\Daybreak\input-idle`
	// utmpFile is where a Linux that notes logins at all does so.
	utmpFile = "/var/run/utmp"
	// A helper writes at least every half minute. One that has died knows nothing of a user who came since.
	maxInputAge = 3 * time.Minute
	maxIdle     = 10 * 365 * 24 * time.Hour
)

// SetClock sets the guest's clock.
func (h *Host) SetClock(ctx context.Context, life hostagent.Life, now time.Time) error {
	err := h.ask(ctx, life, "guest-set-time", map[string]any{"time": now.UnixNano()}, nil)
	if !errors.Is(err, errGuest) {
		return err
	}
	// A Linux without a program for the hardware's clock sets none at all that way.
	status, output, execErr := h.Exec(ctx, life, []string{"/bin/date", "-u", "-s", "@" + strconv.FormatInt(now.Unix(), 10)})
	if execErr == nil && status != 0 {
		execErr = fmt.Errorf("date exited with %d: %s", status, word(output, 128))
	}
	if execErr != nil {
		return errors.Join(err, execErr)
	}
	return nil
}

func (h *Host) guestTime(ctx context.Context, life hostagent.Life) (time.Time, error) {
	var nanoseconds int64
	if err := h.ask(ctx, life, "guest-get-time", nil, &nanoseconds); err != nil {
		return time.Time{}, err
	}
	return time.Unix(0, nanoseconds), nil
}

// Session asks who uses the guest.
func (h *Host) Session(ctx context.Context, life hostagent.Life) (hostagent.Session, error) {
	var session hostagent.Session
	var err error
	session.Users, session.UsersKnown, err = h.users(ctx, life)
	if err != nil {
		return hostagent.Session{}, err
	}
	session.InputIdle, err = h.inputIdle(ctx, life)
	session.InputKnown = err == nil
	if err != nil && !errors.Is(err, errGuest) {
		return hostagent.Session{}, err
	}
	return session, nil
}

// users counts the sessions that somebody is logged in to. A Linux that notes no logins has none on its list, whoever is
// there: then they are not known.
func (h *Host) users(ctx context.Context, life hostagent.Life) (users uint32, known bool, err error) {
	var list []struct {
		User string `json:"user"`
	}
	err = h.ask(ctx, life, "guest-get-users", nil, &list)
	if errors.Is(err, errGuest) {
		return 0, false, nil
	}
	if err != nil || len(list) > 0 {
		return uint32(len(list)), err == nil, err
	}
	handle, err := h.open(ctx, life, utmpFile, "r")
	if err == nil {
		// A handle that stays open is the guest's own loss.
		err = h.ask(ctx, life, "guest-file-close", map[string]any{"handle": handle}, nil)
		return 0, err == nil, ignoreRefusal(err)
	}
	if !errors.Is(err, errGuest) {
		return 0, false, err
	}
	system, err := h.System(ctx, life)
	return 0, err == nil && system.Windows, ignoreRefusal(err)
}

func ignoreRefusal(err error) error {
	if errors.Is(err, errGuest) {
		return nil
	}
	return err
}

// inputIdle reads for how long nobody touched keyboard and pointer.
func (h *Host) inputIdle(ctx context.Context, life hostagent.Life) (time.Duration, error) {
	text, err := h.readFile(ctx, life, inputIdleFile)
	if errors.Is(err, errGuest) {
		text, err = h.readFile(ctx, life, inputIdleFileWindows)
	}
	if err != nil {
		return 0, err
	}
	now, err := h.guestTime(ctx, life)
	if err != nil {
		return 0, err
	}
	return parseInputIdle(text, now)
}

// parseInputIdle reads the helper's words, at a time by the guest's clock.
func parseInputIdle(text string, now time.Time) (time.Duration, error) {
	first, second, ok := strings.Cut(text, " ")
	written, err := parseSeconds(first)
	idle, idleErr := parseSeconds(second)
	if err = errors.Join(err, idleErr); err != nil || !ok {
		return 0, fmt.Errorf("read time of last input: %.64q is not two numbers (%v): %w", text, err, errGuest)
	}
	age := now.Sub(time.Unix(written, 0))
	switch {
	case age < -5*time.Second || age > maxInputAge:
		return 0, fmt.Errorf("read time of last input: it was written %v ago: %w", age.Round(time.Second), errGuest)
	case idle > int64(maxIdle/time.Second):
		return 0, fmt.Errorf("read time of last input: %d s are more than a machine runs: %w", idle, errGuest)
	}
	return time.Duration(idle)*time.Second + max(age, 0), nil
}

// parseSeconds takes what is written with digits only.
func parseSeconds(text string) (int64, error) {
	if text == "" || len(text) > 12 || strings.Trim(text, "0123456789") != "" {
		return 0, errors.New("no whole seconds")
	}
	return strconv.ParseInt(text, 10, 64)
}
