package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/images/inspect"
)

// account is as whom qemu-img runs.
type account struct {
	name     string
	uid, gid uint32
	// other than whom this process runs as.
	other bool
}

func (c Config) account() (account, error) {
	if os.Geteuid() != 0 {
		if c.User != "" {
			return account{}, fmt.Errorf("convert as user %s: only root can run it as somebody else: leave --convert-user out", c.User)
		}
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	name := c.User
	if name == "" {
		name = "nobody"
	}
	found, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("convert as user %s: %w: name one that may do nothing else with --convert-user", name, err)
	}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("convert as user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("convert as user %s: %w", name, err)
	}
	if uid == 0 {
		return account{}, fmt.Errorf("convert as user %s: that is root: name one that may do nothing else with --convert-user", name)
	}
	return account{name: name, uid: uint32(uid), gid: uint32(gid), other: true}, nil
}

// The files as the child sees them. It gets no names, and needs no right to any folder.
const (
	source = "/proc/self/fd/3"
	target = "/proc/self/fd/4"
)

// command is what the child runs: the driver named, no probing, no backing file.
func (c Config) command(report inspect.Report, name string) ([]string, error) {
	node := map[string]any{"driver": string(report.Format), "file": map[string]any{"driver": "file", "filename": source}}
	if report.Format == inspect.QCOW2 || report.Format == inspect.VMDK {
		node["backing"] = nil
	}
	spec, err := json.Marshal(node)
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", name, err)
	}
	var paths []string
	for _, tool := range []struct{ program, pack string }{{"qemu-img", "qemu-utils"}, {"setpriv", "util-linux"}, {"prlimit", "util-linux"}} {
		path, err := exec.LookPath(tool.program)
		if err != nil {
			return nil, fmt.Errorf("%s is %s, and converting it needs %s: install it (Debian: apt install %s), or convert the disk elsewhere and import it as raw: %w",
				name, report.Format, tool.program, tool.pack, ErrNoTool)
		}
		paths = append(paths, path)
	}
	memory := c.Memory
	if memory == 0 {
		memory = 1 << 30
	}
	cpu := uint64(math.Ceil(c.limit(report).Seconds())) * uint64(min(runtime.NumCPU(), 4))
	return []string{
		paths[1], "--no-new-privs",
		paths[2], fmt.Sprintf("--as=%d", memory), fmt.Sprintf("--cpu=%d", cpu), fmt.Sprintf("--fsize=%d", report.VirtualSize), "--core=0", "--nofile=64",
		paths[0], "convert", "-p", "-n", "--target-is-zero", "json:" + string(spec),
		"--target-image-opts", "driver=raw,file.driver=file,file.filename=" + target,
	}, nil
}

// run runs the command in a network namespace with nothing in it, where this machine lets us make one.
func (c Config) run(ctx context.Context, command []string, who account, file, raw *os.File, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: more than %s", ErrTooSlow, limit))
	defer cancel()
	// The child dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child := c.child(ctx, command, file, raw)
	child.SysProcAttr = who.apart()
	if err := child.Start(); err != nil {
		if c.Warn != nil {
			c.Warn(fmt.Sprintf("qemu-img runs with this machine's network in reach: a namespace of its own is not permitted here (%v)", err))
		}
		child = c.child(ctx, command, file, raw)
		child.SysProcAttr = who.plain()
		if err := child.Start(); err != nil {
			return fmt.Errorf("start qemu-img: %w", err)
		}
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, child.Process.Pid, 10) // a courtesy; nothing depends on it
	err := child.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	return explain(err, child.Stderr.(*tail).text(), who)
}

// explain puts the end of qemu-img into words.
func explain(err error, said string, who account) error {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			switch status.Signal() {
			case syscall.SIGXCPU, syscall.SIGKILL:
				return fmt.Errorf("%w, or it was killed", ErrTooSlow)
			case syscall.SIGXFSZ:
				return errors.New("qemu-img wrote past the end of the disk: take another copy of the file")
			}
		}
	}
	if who.other && strings.Contains(said, "'"+source+"': Permission denied") {
		return fmt.Errorf("user %s may not read the file: permit it with 'chmod o+r', or name another user with --convert-user", who.name)
	}
	if said == "" {
		return fmt.Errorf("qemu-img: %w", err)
	}
	return fmt.Errorf("qemu-img: %s", said)
}

func (c Config) child(ctx context.Context, command []string, file, raw *os.File) *exec.Cmd {
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Dir = "/"
	// One arena: address space is limited, and every thread would take 64 MiB of it.
	child.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "MALLOC_ARENA_MAX=1"}
	child.ExtraFiles = []*os.File{file, raw}
	child.Stdout, child.Stderr = &percents{tell: c.Progress}, &tail{}
	child.WaitDelay = 5 * time.Second
	return child
}

// plain: another user where that is possible, and an end when we end.
func (a account) plain() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// apart: also without network. Who is not root needs a user namespace for it, in which they stay who they are.
func (a account) apart() *syscall.SysProcAttr {
	attr := a.plain()
	attr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC
	if !a.other {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(a.uid), HostID: int(a.uid), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(a.gid), HostID: int(a.gid), Size: 1}}
	}
	return attr
}

// maxSaid bounds what is kept of the child's words.
const maxSaid = 2048

// tail keeps the end of what is written.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-maxSaid):]...)
	t.kept = t.kept[max(0, len(t.kept)-maxSaid):]
	return len(p), nil
}

func (t *tail) text() string { return strings.TrimSpace(string(t.kept)) }

// percents reads "(12.34/100%)" from what qemu-img -p writes.
type percents struct {
	tell func(float64)
	rest tail
}

func (p *percents) Write(data []byte) (int, error) {
	_, _ = p.rest.Write(data)
	last := bytes.LastIndex(p.rest.kept, []byte("/100%)"))
	if last < 0 || p.tell == nil {
		return len(data), nil
	}
	open := bytes.LastIndexByte(p.rest.kept[:last], '(')
	if done, err := strconv.ParseFloat(string(p.rest.kept[open+1:last]), 64); err == nil && done >= 0 && done <= 100 {
		p.tell(done)
	}
	p.rest.kept = p.rest.kept[last+1:]
	return len(data), nil
}
