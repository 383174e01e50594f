// Package onehost is the ground that benchmarks on real guests stand on: a lab of one host, apart from any other on the
// machine, with the micro image in it, and the plain script that stands for what an admin would write without Daybreak.
//
// Here: the lab, the pool's text, the script. Not here: what is compared. Only benchmarks in deploy/bench call it.
package onehost

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

	"google.golang.org/protobuf/encoding/protojson"

	v1 "daybreak/proto/daybreak/v1"
)

// Lab is a lab of one host with the micro image published.
type Lab struct {
	root, dir string
	env       []string
}

// start brings the lab up, which takes a minute or two. Whoever has it ends it with down.
func start(ctx context.Context) (*Lab, error) {
	root, err := gitRoot(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "dbkbench")
	if err != nil {
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	l := &Lab{root: root, dir: dir}
	l.env = append(os.Environ(), "DAYBREAK_LAB_DIR="+dir, "DAYBREAK_CONFIG="+filepath.Join(dir, "control", "data", "admin.yaml"))
	if err := l.fill(ctx); err != nil {
		_ = l.down()
		return nil, err
	}
	return l, nil
}

func (l *Lab) fill(ctx context.Context) error {
	if _, err := l.Do(ctx, "deploy/lab", "up", "--hosts", "1"); err != nil {
		return err
	}
	golden := filepath.Join(l.dir, "micro.raw")
	if _, err := l.Do(ctx, "deploy/golden/micro", golden, "--version", "1"); err != nil {
		return err
	}
	_, err := l.Daybreak(ctx, "image", "import", "micro", golden, "--publish")
	return err
}

func gitRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return "", fmt.Errorf("find the checkout: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// down takes the lab away with all its files. It has no context: the lab goes also when the benchmark was interrupted.
func (l *Lab) down() error {
	_, err := l.Do(context.Background(), "deploy/lab", "down", "--purge")
	return err
}

// Do runs one of the checkout's programs and returns its standard output.
func (l *Lab) Do(ctx context.Context, program string, args ...string) (string, error) {
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

// Daybreak runs the command line.
func (l *Lab) Daybreak(ctx context.Context, args ...string) (string, error) {
	return l.Do(ctx, "bin/daybreak", args...)
}

// Inside runs a command on the host.
func (l *Lab) Inside(ctx context.Context, command ...string) (string, error) {
	return l.Do(ctx, "deploy/lab", append([]string{"shell", "h1"}, command...)...)
}

// Pool is the text of the benchmark's pool and of what it needs; more are lines of its spec.
func Pool(desktops int, more string) string {
	return fmt.Sprintf(`kind: zone
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
%s`, desktops, more)
}

// Apply applies objects.
func (l *Lab) Apply(ctx context.Context, yaml string) error {
	file := filepath.Join(l.dir, "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		return fmt.Errorf("write objects: %w", err)
	}
	_, err := l.Daybreak(ctx, "apply", "-f", file)
	return err
}

// Desktops lists the pool's desktops.
func (l *Lab) Desktops(ctx context.Context) ([]*v1.Desktop, error) {
	out, err := l.Daybreak(ctx, "get", "desktops", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("read desktops: %w", err)
	}
	var found []*v1.Desktop
	for _, item := range list.Items {
		desktop := &v1.Desktop{}
		if err := protojson.Unmarshal(item, desktop); err != nil {
			return nil, fmt.Errorf("read desktop: %w", err)
		}
		found = append(found, desktop)
	}
	return found, nil
}

// Await looks at the desktops until they are as they should be.
func (l *Lab) Await(ctx context.Context, done func([]*v1.Desktop) bool) ([]*v1.Desktop, error) {
	for {
		found, err := l.Desktops(ctx)
		if err != nil || done(found) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Empty takes the pool's desktops away.
func (l *Lab) Empty(ctx context.Context) error {
	if err := l.Apply(ctx, Pool(0, "")); err != nil {
		return err
	}
	_, err := l.Await(ctx, func(found []*v1.Desktop) bool { return len(found) == 0 })
	return err
}

// Ready makes the pool have so many desktops, and waits until all are ready.
func (l *Lab) Ready(ctx context.Context, desktops int) error {
	if err := l.Apply(ctx, Pool(desktops, "")); err != nil {
		return err
	}
	_, err := l.Daybreak(ctx, "wait", "pool", "bench", "--for", "ready", "--timeout", "10m")
	return err
}
