package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// lab is a lab of one host, apart from any other on the machine.
type lab struct {
	root, dir string
	env       []string
}

func newLab(ctx context.Context) (*lab, error) {
	root, err := gitRoot(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "dbkbench")
	if err != nil {
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	l := &lab{root: root, dir: dir}
	l.env = append(os.Environ(), "DAYBREAK_LAB_DIR="+dir, "DAYBREAK_CONFIG="+filepath.Join(dir, "control", "data", "admin.yaml"))
	if _, err := l.do(ctx, "deploy/lab", "up", "--hosts", "1"); err != nil {
		_ = l.down()
		return nil, err
	}
	return l, nil
}

func gitRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (l *lab) down() error {
	// Without the caller's context: the lab goes also when the benchmark was interrupted.
	_, err := l.do(context.Background(), "deploy/lab", "down", "--purge")
	return err
}

// do runs one of the checkout's programs and returns its standard output.
func (l *lab) do(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(l.root, program), args...)
	cmd.Env, cmd.Dir = l.env, l.root
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", program, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (l *lab) daybreak(ctx context.Context, args ...string) (string, error) {
	return l.do(ctx, "bin/daybreak", args...)
}

// apply writes the pool with that many desktops and applies it.
func (l *lab) apply(ctx context.Context, desktops int) error {
	file := filepath.Join(l.dir, "pool.yaml")
	text := fmt.Sprintf(`kind: zone
meta: {name: office}
---
kind: pool
meta: {name: bench}
spec:
  image: micro
  zone: office
  desktops: %d
  shape: {vcpus: 1, memoryMib: 128, overlayReserveMib: 64}
  readiness: {probe: [/bin/test, "-s", /run/daybreak/boot-nonce], deadline: 600s}
`, desktops)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write pool: %w", err)
	}
	_, err := l.daybreak(ctx, "apply", "-f", file)
	return err
}

// gone waits until the pool has no desktops left.
func (l *lab) gone(ctx context.Context) error {
	if err := l.apply(ctx, 0); err != nil {
		return err
	}
	for {
		out, err := l.daybreak(ctx, "get", "desktops", "-o", "json")
		if err != nil {
			return err
		}
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return fmt.Errorf("read desktops: %w", err)
		}
		if len(list.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
