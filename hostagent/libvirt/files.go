package libvirt

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
)

const (
	// putBytes goes into a guest's file with one word. In base64 that is what the channel holds: of 256 KiB, guests of
	// libvirt 9 and QEMU 7.2 never saw the end.
	putBytes = 48 << 10
	// getBytes comes out of one; in base64 it is below maxAnswer.
	getBytes = 32 << 10
)

// System says what runs in the guest.
func (h *Host) System(ctx context.Context, life hostagent.Life) (build.System, error) {
	var os struct {
		ID   string `json:"id"`
		Name string `json:"pretty-name"`
	}
	// An agent may not know the question, nor the answer.
	if err := h.ask(ctx, life, "guest-get-osinfo", nil, &os); err != nil && !errors.Is(err, errGuest) {
		return build.System{}, err
	}
	var host struct {
		Name string `json:"host-name"`
	}
	if err := h.ask(ctx, life, "guest-get-host-name", nil, &host); err != nil && !errors.Is(err, errGuest) {
		return build.System{}, err
	}
	return build.System{Windows: os.ID == "mswindows", Name: word(os.Name, maxWord), Hostname: word(host.Name, maxWord)}, nil
}

// Put writes a file of the guest anew from all that content gives.
func (h *Host) Put(ctx context.Context, life hostagent.Life, path string, content io.Reader) (err error) {
	handle, err := h.open(ctx, life, path, "w")
	if err != nil {
		return err
	}
	defer func() {
		// What does not come to the disk may show only here.
		err = errors.Join(err, h.ask(ctx, life, "guest-file-close", map[string]any{"handle": handle}, nil))
	}()
	buf := make([]byte, putBytes)
	for {
		n, readErr := io.ReadFull(content, buf)
		if err := h.write(ctx, life, handle, buf[:n]); err != nil {
			return err
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// write writes at the handle's place, in as many words as the guest takes.
func (h *Host) write(ctx context.Context, life hostagent.Life, handle int64, data []byte) error {
	for len(data) > 0 {
		var wrote struct {
			Count int `json:"count"`
		}
		arguments := map[string]any{"handle": handle, "buf-b64": base64.StdEncoding.EncodeToString(data)}
		if err := h.ask(ctx, life, "guest-file-write", arguments, &wrote); err != nil {
			return err
		}
		if wrote.Count <= 0 || wrote.Count > len(data) {
			return fmt.Errorf("write to guest's file: it took %d of %d bytes: %w", wrote.Count, len(data), errGuest)
		}
		data = data[wrote.Count:]
	}
	return nil
}

// Get reads a part of a file of the guest: at most limit bytes from offset on, fewer only at its end.
func (h *Host) Get(ctx context.Context, life hostagent.Life, path string, offset int64, limit int) (_ []byte, err error) {
	handle, err := h.open(ctx, life, path, "r")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, h.ask(ctx, life, "guest-file-close", map[string]any{"handle": handle}, nil))
	}()
	if offset > 0 {
		if err := h.ask(ctx, life, "guest-file-seek", map[string]any{"handle": handle, "offset": offset, "whence": 0}, nil); err != nil {
			return nil, err
		}
	}
	var content []byte
	for len(content) < limit {
		count := min(getBytes, limit-len(content))
		var read struct {
			Content string `json:"buf-b64"`
		}
		if err := h.ask(ctx, life, "guest-file-read", map[string]any{"handle": handle, "count": count}, &read); err != nil {
			return nil, err
		}
		piece, err := base64.StdEncoding.DecodeString(read.Content)
		if err != nil || len(piece) > count {
			return nil, fmt.Errorf("read %.80q of guest: %d bytes where %d were asked for: %w", path, len(piece), count, errGuest)
		}
		if len(piece) == 0 {
			break
		}
		content = append(content, piece...)
	}
	return content, nil
}

func (h *Host) open(ctx context.Context, life hostagent.Life, path, mode string) (handle int64, err error) {
	err = h.ask(ctx, life, "guest-file-open", map[string]any{"path": path, "mode": mode}, &handle)
	return handle, err
}

// Begin starts a program in the guest, without a shell and without its output.
func (h *Host) Begin(ctx context.Context, life hostagent.Life, argv []string) (pid int64, err error) {
	if err := checkArguments(argv); err != nil {
		return 0, err
	}
	var started struct {
		PID *int64 `json:"pid"`
	}
	if err := h.ask(ctx, life, "guest-exec", map[string]any{"path": argv[0], "arg": argv[1:]}, &started); err != nil {
		return 0, err
	}
	if started.PID == nil {
		return 0, fmt.Errorf("run %q in guest of %s: no process id: %w", argv[0], life.Desktop, errGuest)
	}
	return *started.PID, nil
}

// Ended says whether a program has ended, and with which status; the guest tells that once.
func (h *Host) Ended(ctx context.Context, life hostagent.Life, pid int64) (status int, ended bool, err error) {
	var now execStatus
	if err := h.ask(ctx, life, "guest-exec-status", map[string]any{"pid": pid}, &now); err != nil {
		return 0, false, err
	}
	if !now.Exited {
		return 0, false, nil
	}
	status, _, err = now.result()
	return status, err == nil, err
}
