package libvirt

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	maxOutput    = 4 << 10
	maxArguments = 64
	maxArgument  = 16 << 10
	maxAddresses = 16
	// A guest that lists more than this is not read to the end.
	maxInterfaces = 64
	// What a guest says of itself lies in these files of our images.
	imageVersionFile = "/run/daybreak/image-version"
	bootNonceFile    = "/run/daybreak/boot-nonce"
)

// Ping returns nil when the guest agent answered now.
func (h *Host) Ping(ctx context.Context, life hostagent.Life) error {
	return h.ask(ctx, life, "guest-ping", nil, nil)
}

// Exec runs a program in the guest without a shell, and returns its exit status and the first 4 KiB of its output. A
// program that a signal ended has status 128 and the signal's number more, as in a shell.
func (h *Host) Exec(ctx context.Context, life hostagent.Life, argv []string) (int, string, error) {
	if err := checkArguments(argv); err != nil {
		return 0, "", err
	}
	var started struct {
		PID *int64 `json:"pid"`
	}
	arguments := map[string]any{"path": argv[0], "arg": argv[1:], "capture-output": true}
	if err := h.ask(ctx, life, "guest-exec", arguments, &started); err != nil {
		return 0, "", err
	}
	if started.PID == nil {
		return 0, "", fmt.Errorf("run %q in guest of %s: no process id: %w", argv[0], life.Desktop, errGuest)
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		var status execStatus
		if err := h.ask(ctx, life, "guest-exec-status", map[string]any{"pid": *started.PID}, &status); err != nil {
			return 0, "", err
		}
		if status.Exited {
			return status.result()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, "", late(ctx, fmt.Sprintf("run %q in guest of %s", argv[0], life.Desktop))
		}
	}
}

func checkArguments(argv []string) error {
	if len(argv) == 0 || len(argv) > maxArguments || argv[0] == "" {
		return fmt.Errorf("run in guest: %d arguments are not 1 to %d: %w", len(argv), maxArguments, hostagent.ErrPermanent)
	}
	for _, a := range argv {
		if !utf8.ValidString(a) || len(a) > maxArgument {
			return fmt.Errorf("run in guest: argument %.80q is not UTF-8 of at most %d bytes: %w", a, maxArgument, hostagent.ErrPermanent)
		}
	}
	return nil
}

// execStatus is the answer to guest-exec-status.
type execStatus struct {
	Exited   bool   `json:"exited"`
	ExitCode int    `json:"exitcode"`
	Signal   int    `json:"signal"`
	Out      string `json:"out-data"`
	Err      string `json:"err-data"`
}

// result returns the exit status and the output, standard output first.
func (s execStatus) result() (int, string, error) {
	out, err := base64.StdEncoding.DecodeString(s.Out)
	if err != nil {
		return 0, "", fmt.Errorf("read output of program in guest: %w: %w", err, errGuest)
	}
	more, err := base64.StdEncoding.DecodeString(s.Err)
	if err != nil {
		return 0, "", fmt.Errorf("read output of program in guest: %w: %w", err, errGuest)
	}
	out = append(out, more...)
	// Windows has statuses and exceptions of 32 bits. No other number may become a status, least of all 0.
	if s.ExitCode < 0 || s.ExitCode > math.MaxUint32 || s.Signal < 0 || s.Signal > math.MaxUint32 {
		return 0, "", fmt.Errorf("read status of program in guest: %d, signal %d: %w", s.ExitCode, s.Signal, errGuest)
	}
	status := s.ExitCode
	if s.Signal != 0 {
		status = 128 + s.Signal
	}
	return status, lines(string(out[:min(len(out), maxOutput)])), nil
}

// Describe reads what the guest says of itself. A part that the guest does not give is empty; a guest that does not answer
// at all is an error.
func (h *Host) Describe(ctx context.Context, life hostagent.Life) (*v1.GuestReport, error) {
	var info struct {
		Version string `json:"version"`
	}
	if err := h.ask(ctx, life, "guest-info", nil, &info); err != nil {
		return nil, err
	}
	report := &v1.GuestReport{AgentVersion: word(info.Version, maxWord)}
	var host struct {
		Name string `json:"host-name"`
	}
	var interfaces []guestInterface
	for _, part := range []func() error{
		func() error { return h.ask(ctx, life, "guest-get-host-name", nil, &host) },
		func() error { return h.ask(ctx, life, "guest-network-get-interfaces", nil, &interfaces) },
		func() (err error) { report.ImageVersion, err = h.readFile(ctx, life, imageVersionFile); return },
		func() (err error) { report.BootNonce, err = h.readFile(ctx, life, bootNonceFile); return },
	} {
		if err := part(); err != nil && !errors.Is(err, errGuest) {
			return nil, err
		}
	}
	report.Hostname, report.Addresses = word(host.Name, maxWord), addresses(interfaces)
	return report, nil
}

type guestInterface struct {
	Addresses []struct {
		Address string `json:"ip-address"`
	} `json:"ip-addresses"`
}

// addresses returns what somebody else could reach the guest by, written in the one way that addresses are written.
func addresses(interfaces []guestInterface) []string {
	var all []string
	for _, i := range interfaces[:min(len(interfaces), maxInterfaces)] {
		for _, a := range i.Addresses[:min(len(i.Addresses), maxInterfaces)] {
			addr, err := netip.ParseAddr(a.Address)
			if err != nil || addr.Zone() != "" || !addr.IsGlobalUnicast() {
				continue
			}
			text := addr.Unmap().String()
			if slices.Contains(all, text) {
				continue
			}
			if all = append(all, text); len(all) == maxAddresses {
				return all
			}
		}
	}
	return all
}

// readFile reads the first line of a small file of the guest.
func (h *Host) readFile(ctx context.Context, life hostagent.Life, path string) (string, error) {
	var handle int64
	if err := h.ask(ctx, life, "guest-file-open", map[string]any{"path": path, "mode": "r"}, &handle); err != nil {
		return "", err
	}
	var read struct {
		Content string `json:"buf-b64"`
	}
	readErr := h.ask(ctx, life, "guest-file-read", map[string]any{"handle": handle, "count": maxWord}, &read)
	// The guest's handles are the guest's memory: one that stays open harms nobody else.
	closeErr := h.ask(ctx, life, "guest-file-close", map[string]any{"handle": handle}, nil)
	if err := errors.Join(readErr, closeErr); err != nil {
		return "", err
	}
	content, err := base64.StdEncoding.DecodeString(read.Content)
	if err != nil {
		return "", fmt.Errorf("read %s of guest: %w: %w", path, err, errGuest)
	}
	return word(string(content), maxWord), nil
}
