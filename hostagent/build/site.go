package build

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

// What is run in guests. POSIX shell without more than every distribution and busybox have, and PowerShell 5.
var (
	//go:embed guest/run.sh
	runShell string
	//go:embed guest/packages.sh
	packagesShell []byte
	//go:embed guest/seal.sh
	sealShell []byte
	//go:embed guest/trim.sh
	trimShell []byte
	//go:embed guest/packages.ps1
	packagesPowerShell []byte
	//go:embed guest/seal.ps1
	sealPowerShell []byte
)

const (
	followEvery = 500 * time.Millisecond
	followBytes = 128 << 10
	// maxOutput of a script is shown; what comes after that is not read.
	maxOutput = 64 << 20
	// stepTimeout is how long a step of ours may take in a guest.
	stepTimeout = 30 * time.Minute
)

// site is a system to work on: the guest itself, or one that lies on an appliance's second disk.
type site struct {
	v *vm
	// root is where the system lies in the guest: empty, or the appliance's mount point.
	root string
	// dir holds what we bring, as the system sees it.
	dir string
}

const (
	linuxDir   = "/run/daybreak-build"
	windowsDir = `C:\Windows\Temp\daybreak-build`
	cmdExe     = `C:\Windows\System32\cmd.exe`
)

// online is the guest that runs.
func (v *vm) online() *site {
	if v.system.Windows {
		return &site{v: v, dir: windowsDir}
	}
	return &site{v: v, dir: linuxDir}
}

func (s *site) file(name string) string {
	if s.v.system.Windows {
		return s.dir + `\` + name
	}
	return s.dir + "/" + name
}

// brought is a script in the guest, with a file for its output. Every run has files of its own: what an earlier one left
// would be taken for the next one's until that has begun.
type brought struct {
	script, output string
	// status is where the script's exit status is written down too; empty where it is not.
	status string
	argv   []string
}

// bring says where a script goes, and how it is run there.
func (s *site) bring(script []byte, arguments ...string) brought {
	s.v.runs++
	if s.v.system.Windows {
		b := brought{script: s.file(fmt.Sprintf("script-%d.ps1", s.v.runs)), output: s.file(fmt.Sprintf("output-%d", s.v.runs))}
		b.argv = []string{cmdExe, "/d", "/c", "powershell.exe", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", b.script}
		b.argv = append(append(b.argv, arguments...), ">", b.output, "2>&1")
		return b
	}
	inside := s.file(fmt.Sprintf("script-%d", s.v.runs))
	b := brought{script: s.root + inside, output: fmt.Sprintf("%s/output-%d", linuxDir, s.v.runs)}
	b.status = b.output + ".status"
	b.argv = append([]string{"/bin/sh", "-c", runShell, "sh", s.root, b.output}, interpreter(script)...)
	b.argv = append(append(b.argv, inside), arguments...)
	return b
}

// interpreter is what a script's first line names: a program and at most one argument for it. It is asked for here and not by
// the guest's kernel, since the folder that the script lies in may not let programs run.
func interpreter(script []byte) []string {
	line, _, _ := bytes.Cut(script[:min(len(script), 1024)], []byte("\n"))
	rest, ok := strings.CutPrefix(strings.TrimRight(string(line), "\r"), "#!")
	program, argument, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if !ok || !strings.HasPrefix(program, "/") {
		return []string{"/bin/sh", "-e"}
	}
	if argument = strings.TrimSpace(argument); argument != "" {
		return []string{program, argument}
	}
	return []string{program}
}

// prepare makes the folder for what we bring.
func (s *site) prepare(ctx context.Context) error {
	argv := []string{"/bin/sh", "-c", `umask 077; mkdir -p "$@"`, "sh", linuxDir, s.root + s.dir}
	if s.v.system.Windows {
		argv = []string{cmdExe, "/d", "/c", "if", "not", "exist", s.dir, "mkdir", s.dir}
	}
	return s.must(ctx, "make a folder in the guest", argv)
}

// leave removes what we brought.
func (s *site) leave(ctx context.Context) error {
	argv := []string{"/bin/sh", "-c", `rm -rf "$@"`, "sh", linuxDir, s.root + s.dir}
	if s.v.system.Windows {
		argv = []string{cmdExe, "/d", "/c", "rmdir", "/s", "/q", s.dir}
	}
	return s.must(ctx, "remove our folder in the guest", argv)
}

// must runs a program without output that has to succeed.
func (s *site) must(ctx context.Context, what string, argv []string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	status, err := s.await(ctx, brought{argv: argv}, func(context.Context) error { return nil })
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// await begins a program and waits for its end; each time it looks, it calls follow, and once more afterwards.
func (s *site) await(ctx context.Context, b brought, follow func(context.Context) error) (status int, err error) {
	g, life := s.v.j.b.guest, s.v.life
	pid, err := g.Begin(ctx, life, b.argv)
	if err != nil {
		return 0, err
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, followEvery) {
		ended := false
		err := s.v.retry(ctx, func() (err error) {
			status, ended, err = g.Ended(ctx, life, pid)
			return err
		})
		if errors.Is(err, hostagent.ErrGuest) && b.status != "" {
			status, ended, err = s.written(ctx, b.status, pid)
		}
		if err != nil {
			return 0, err
		}
		if err := follow(ctx); err != nil {
			return 0, err
		}
		if ended {
			return status, nil
		}
		if !pause(ctx, wait) {
			return 0, context.Cause(ctx)
		}
	}
}

// written is for a script of which the guest agent knows nothing, since it was started anew meanwhile: it reads what the
// script wrote down at its end.
func (s *site) written(ctx context.Context, file string, pid int64) (status int, ended bool, err error) {
	read := func() (bool, error) {
		var text []byte
		err := s.v.retry(ctx, func() (err error) {
			text, err = s.v.j.b.guest.Get(ctx, s.v.life, file, 0, 16)
			return err
		})
		if errors.Is(err, hostagent.ErrGuest) || err == nil && len(text) == 0 {
			return false, nil
		}
		if err == nil {
			status, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil, err
	}
	if ended, err = read(); ended || err != nil {
		return status, ended, err
	}
	alive := s.must(ctx, "look for the script", []string{"/bin/sh", "-c", `kill -0 "$1"`, "sh", strconv.FormatInt(pid, 10)})
	if alive == nil {
		return 0, false, nil
	}
	if ended, err = read(); !ended && err == nil { // it may have ended between the two looks
		err = fmt.Errorf("it is not there any more, and did not end by itself: was the guest started anew? %w", alive)
	}
	return status, ended, err
}

// run runs a script and hands its output on while it runs. The status is the script's.
func (s *site) run(ctx context.Context, script []byte, output func([]byte) error, arguments ...string) (status int, err error) {
	g, life, b := s.v.j.b.guest, s.v.life, s.bring(script, arguments...)
	err = s.v.retry(ctx, func() error { return g.Put(ctx, life, b.script, bytes.NewReader(script)) })
	if err != nil {
		return 0, fmt.Errorf("bring script to the guest: %w", err)
	}
	return s.await(ctx, b, s.follow(b.output, output))
}

// follow returns a function that hands on what is new in the file of an output.
func (s *site) follow(file string, output func([]byte) error) func(context.Context) error {
	g, life, offset := s.v.j.b.guest, s.v.life, int64(0)
	return func(ctx context.Context) error {
		for offset < maxOutput {
			var piece []byte
			err := s.v.retry(ctx, func() (err error) {
				piece, err = g.Get(ctx, life, file, offset, followBytes)
				return err
			})
			if errors.Is(err, hostagent.ErrGuest) || err == nil && len(piece) == 0 {
				return nil // not there yet, or held by who writes it
			}
			if err != nil {
				return fmt.Errorf("read output: %w", err)
			}
			offset += int64(len(piece))
			if offset >= maxOutput {
				piece = append(piece, "\n[what follows is not shown]\n"...)
			}
			if err := output(piece); err != nil {
				return err
			}
		}
		return nil
	}
}

// step runs a script of ours that has to succeed. Its output is told when it does not.
func (s *site) step(ctx context.Context, what string, script []byte, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var output bytes.Buffer
	status, err := s.run(ctx, script, func(piece []byte) error {
		output.Write(piece[:min(len(piece), maxPackages-output.Len())])
		return nil
	}, arguments...)
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d: %s", status, tail(output.String()))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return output.String(), nil
}

// tail is the end of an output.
func tail(text string) string {
	return clean(text[max(0, len(text)-512):], 512)
}

// packages lists the system's packages; empty when they cannot be found out.
func (s *site) packages(ctx context.Context) string {
	script := packagesShell
	if s.v.system.Windows {
		script = packagesPowerShell
	}
	err := s.prepare(ctx)
	text := ""
	if err == nil {
		text, err = s.step(ctx, "list packages", script)
	}
	if err != nil {
		s.v.j.log.Warn().Err(err).Msg("the guest's packages are not known")
	}
	return packageLines(text)
}

// packageLines keeps the lines that are a name and a version.
func packageLines(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		name, version, ok := strings.Cut(clean(line, 512), " ")
		if !ok || name == "" || version == "" {
			continue
		}
		if line = name + " " + strings.TrimSpace(version) + "\n"; out.Len()+len(line) > maxPackages {
			break
		}
		out.WriteString(line)
	}
	return out.String()
}

// copyFiles copies the order's files into the system.
func (s *site) copyFiles(ctx context.Context) error {
	for i, file := range s.v.j.order.GetFiles() {
		if err := s.v.j.talk.progress(fmt.Sprintf("copying file %d of %d", i+1, len(s.v.j.order.GetFiles())), 0); err != nil {
			return err
		}
		if err := s.copyFile(ctx, file, s.v.j.talk.file(ctx, file.GetSize())); err != nil {
			return fmt.Errorf("copy %s: %w", clean(file.GetPath(), 256), err)
		}
	}
	return nil
}

func (s *site) copyFile(ctx context.Context, file *v1.BuildFile, content io.Reader) error {
	g, life, to := s.v.j.b.guest, s.v.life, file.GetPath()
	if s.v.system.Windows {
		return g.Put(ctx, life, to, content)
	}
	if !path.IsAbs(to) || path.Clean(to) != to || to == "/" {
		return errors.New("the path is not an absolute one")
	}
	mode := file.GetMode()
	if mode == 0 {
		mode = 0o644
	}
	chmod := strconv.FormatUint(uint64(mode), 8)
	if s.root == "" {
		if err := s.must(ctx, "make its folder", []string{"/bin/sh", "-c", `mkdir -p "$1"`, "sh", path.Dir(to)}); err != nil {
			return err
		}
		if err := g.Put(ctx, life, to, content); err != nil {
			return err
		}
		return s.must(ctx, "set its mode", []string{"/bin/sh", "-c", `chmod "$1" "$2"`, "sh", chmod, to})
	}
	// Through a file in our folder: a link on the way to the proper place would lead out of the system into the appliance.
	if err := g.Put(ctx, life, s.root+s.file("file"), content); err != nil {
		return err
	}
	_, err := s.step(ctx, "put it in its place", []byte(`mkdir -p "$(dirname "$2")"; cat "$1" >"$2"; chmod "$3" "$2"; rm "$1"`), s.file("file"), to, chmod)
	return err
}
