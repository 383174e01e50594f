package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "daybreak/proto/daybreak/v1"
)

// maxScript is how long a script may be, as in its proto.
const maxScript = 1 << 20

// patching is how a patch or a check is wanted.
type patching struct {
	order                       *v1.BuildOrder
	script, log, screen, format string
	files                       []string
	boot, run                   time.Duration
	publish                     bool
}

func (a *app) imagePatchCommand() *cobra.Command {
	p := &patching{order: &v1.BuildOrder{Kind: v1.BuildKind_BUILD_KIND_PATCH, Shape: &v1.Shape{}}}
	c := &cobra.Command{
		Use:   "patch NAME --script FILE",
		Short: "Make a new version of an image by running a script in it",
		Long: `Patch boots a VM on a copy of a version of the image, on a host, copies files into it, runs the script as root, takes away what
must not be cloned (machine-id, SSH host keys, logs, temporary files, leases), and makes what has changed a new version. That is
booted once as a check and is ready then; 'daybreak image publish' or --publish lets pools move to it.

The script is run with /bin/sh -e, or by what its first line names ("#!"); in a Windows guest with PowerShell, as SYSTEM. Its
output is shown and kept: 'daybreak image log'. Ctrl-C ends the patch and leaves nothing of it.

--interactive leaves the VM at its screen, which a VNC viewer on this machine can see, until it is sealed. --offline boots no
guest: an appliance, which is another image, mounts the disk of the image and runs the script in it with chroot (Linux guests).`,
		Example: `  daybreak image patch debian --script patch.sh --note "November patches" --publish
  daybreak image patch debian --script install.sh --file ./agent.deb:/tmp/agent.deb --file ./run.sh:/usr/local/bin/run:0755
  daybreak image patch debian --interactive --zone internet
  daybreak image patch debian --offline --appliance tools --script fix.sh`,
		Args: exactly("NAME"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_IMAGE),
		PreRunE: func(*cobra.Command, []string) error { return p.check() },
		RunE: func(c *cobra.Command, args []string) error {
			p.order.Image = args[0]
			call, err := a.newBuildCall(p)
			if err != nil {
				return err
			}
			defer call.close()
			return a.withConn(func(conn *grpc.ClientConn) error { return call.run(c.Context(), conn) })
		},
	}
	flags := c.Flags()
	flags.StringVar(&p.script, "script", "", "file with the script")
	flags.StringArrayVar(&p.files, "file", nil, "LOCAL:GUEST[:MODE]: a file to copy into the guest before the script runs; again for more")
	flags.StringVar(&p.order.Note, "note", "", "what changes, for people")
	flags.Uint32Var(&p.order.Version, "version", 0, "version to patch (default the current one, unless a pool went back from it)")
	flags.BoolVar(&p.order.Interactive, "interactive", false, "leave the VM at its screen until it is sealed")
	flags.StringVar(&p.screen, "screen", "127.0.0.1:0", "with --interactive: where VNC viewers are served; whoever can reach it has the VM's console")
	flags.BoolVar(&p.order.Offline, "offline", false, "boot no guest: run the script in its disk with chroot, in an appliance")
	flags.StringVar(&p.order.Appliance, "appliance", "", "with --offline: image whose current version is the appliance")
	flags.BoolVar(&p.order.Unsealed, "unsealed", false, "leave machine-id, SSH host keys, logs, temporary files and leases as they are")
	lengthFlag(flags, &p.run, "script-timeout", 0, "time for the script (default 1h)")
	flags.BoolVar(&p.publish, "publish", false, "publish the version once it is ready")
	flags.StringVar(&p.log, "log", "", "write the script's output to this file, too")
	a.completeFlag(c, "appliance", v1.Kind_KIND_IMAGE)
	p.vmFlags(a, c)
	return c
}

func (a *app) imageCheckCommand() *cobra.Command {
	p := &patching{order: &v1.BuildOrder{Kind: v1.BuildKind_BUILD_KIND_CHECK, Shape: &v1.Shape{}}}
	c := &cobra.Command{
		Use:   "check NAME [VERSION]",
		Short: "Boot a version of an image once, to see whether it comes up",
		Long: `Check boots the version on a host, waits until its guest agent answers, notes what the guest says of itself and its packages,
and throws the VM away. A draft that comes up is ready. Without VERSION the newest is checked.`,
		Example: "  daybreak image check debian\n  daybreak image check debian 4 --host kvm2",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return wrongUsage("want NAME [VERSION], got %s", several(len(args), "argument"))
			}
			return nil
		},
		ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			p.order.Image = args[0]
			if len(args) == 2 {
				number, err := versionNumber(args[1])
				if err != nil {
					return err
				}
				p.order.Version = number
			}
			call, err := a.newBuildCall(p)
			if err != nil {
				return err
			}
			defer call.close()
			return a.withConn(func(conn *grpc.ClientConn) error { return call.run(c.Context(), conn) })
		},
	}
	p.vmFlags(a, c)
	return c
}

// vmFlags are those of the VM of a build.
func (p *patching) vmFlags(a *app, c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&p.order.Host, "host", "", "host to do it on (default one that has room, best one that has the version)")
	flags.StringVar(&p.order.Zone, "zone", "", "zone of the VM's network (default it has none)")
	flags.Uint32Var(&p.order.Shape.MemoryMib, "memory-mib", 0, "memory of the VM, MiB (default 2048)")
	flags.Uint32Var(&p.order.Shape.Vcpus, "vcpus", 0, "CPUs of the VM (default 2)")
	lengthFlag(flags, &p.boot, "boot-timeout", 0, "time for the guest to boot (default 5m)")
	formatFlag(c, &p.format, "", formatJSON)
	a.completeFlag(c, "host", v1.Kind_KIND_HOST)
	a.completeFlag(c, "zone", v1.Kind_KIND_ZONE)
}

// check finds what is wrong with the flags of a patch.
func (p *patching) check() error {
	switch o := p.order; {
	case p.script == "" && !o.GetInteractive():
		return wrongUsage("--script FILE is needed, or --interactive")
	case o.GetOffline() && o.GetAppliance() == "":
		return wrongUsage("--offline needs --appliance IMAGE, the image that the script runs in")
	case o.GetAppliance() != "" && !o.GetOffline():
		return wrongUsage("--appliance is for --offline")
	case o.GetOffline() && o.GetInteractive():
		return wrongUsage("--offline boots no guest, so that there is no screen for --interactive")
	case p.boot < 0 || p.run < 0:
		return wrongUsage("a timeout cannot be negative")
	}
	return nil
}

// finish reads what the flags name into the order and opens the files to send.
func (p *patching) finish() (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
		}
	}()
	if p.boot > 0 {
		p.order.BootTimeout = durationpb.New(p.boot)
	}
	if p.run > 0 {
		p.order.ScriptTimeout = durationpb.New(p.run)
	}
	if p.script != "" {
		if p.order.Script, err = readScript(p.script); err != nil {
			return nil, err
		}
	}
	for _, words := range p.files {
		file, entry, err := openFile(words)
		if err != nil {
			return files, err
		}
		files = append(files, file)
		p.order.Files = append(p.order.Files, entry)
	}
	return files, nil
}

func readScript(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxScript {
		return nil, fmt.Errorf("%s has %d bytes, a script can have %d: bring what is large with --file", path, info.Size(), maxScript)
	}
	script, err := os.ReadFile(path)
	if err == nil && len(script) == 0 {
		return nil, fmt.Errorf("%s is empty: a patch needs a script", path)
	}
	return script, err
}

// fileWords is LOCAL:GUEST[:MODE]; a guest's path may be one of Windows, with a colon of its own.
var fileWords = regexp.MustCompile(`^([^:]+):((?:[A-Za-z]:)?[/\\][^:]*)(?::([0-7]{3,4}))?$`)

func openFile(words string) (*os.File, *v1.BuildFile, error) {
	parts := fileWords.FindStringSubmatch(words)
	if parts == nil {
		return nil, nil, wrongUsage("--file wants LOCAL:GUEST[:MODE], GUEST an absolute path and MODE three octal digits; found %q", words)
	}
	file, err := os.Open(filepath.Clean(parts[1]))
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: pack what is a folder with tar and unpack it in the script", parts[1])
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	mode := uint64(info.Mode().Perm())
	if parts[3] != "" {
		if mode, err = strconv.ParseUint(parts[3], 8, 32); err != nil || mode > 0o777 {
			_ = file.Close()
			return nil, nil, wrongUsage("--file %s: the mode is three octal digits, 0777 at most", words)
		}
	}
	guest := parts[2]
	if strings.HasSuffix(guest, "/") {
		guest += filepath.Base(parts[1])
	}
	return file, &v1.BuildFile{Path: guest, Mode: uint32(mode), Size: uint64(info.Size())}, nil
}

func closeFiles(files []*os.File) {
	for _, file := range files {
		_ = file.Close()
	}
}

// versionNumber reads the number of a version.
func versionNumber(text string) (uint32, error) {
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || number == 0 {
		return 0, wrongUsage("VERSION is a number from 1 on, found %q", text)
	}
	return uint32(number), nil
}
