package build

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"daybreak/images/pack"
	v1 "daybreak/proto/daybreak/v1"
)

var (
	//go:embed guest/attach.sh
	attachShell []byte
	//go:embed guest/detach.sh
	detachShell []byte
)

const (
	defaultScript = time.Hour
	// targetRoot is where the appliance mounts the disk that it works on.
	targetRoot = "/run/daybreak-target"
	// targetDir is our folder there.
	targetDir = "/.daybreak-build"
)

// patch makes a new version: it changes a guest, or a disk in an appliance, and sends what is new of it.
func (j *job) patch(ctx context.Context) (*v1.BuildOutcome, error) {
	reserve := uint64(j.order.GetShape().GetOverlayReserveMib()) << 20
	if reserve == 0 {
		reserve = defaultReserve
		for _, file := range j.order.GetFiles() {
			reserve += file.GetSize()
		}
	}
	disk, err := j.disk(ctx, j.order.GetImage(), j.task.GetDigest(), reserve)
	if err != nil {
		return nil, err
	}
	outcome := &v1.BuildOutcome{}
	var v *vm
	if j.order.GetOffline() {
		v, err = j.patchOffline(ctx, disk, outcome)
	} else {
		v, err = j.boot(ctx, disk, nil, func(ctx context.Context, v *vm) error { return v.change(ctx, outcome) })
	}
	if err != nil {
		return nil, err
	}
	if err := v.powerOff(ctx); err != nil {
		return nil, err
	}
	return outcome, j.publish(ctx, disk, outcome)
}

// change changes a guest that runs.
func (v *vm) change(ctx context.Context, outcome *v1.BuildOutcome) error {
	s := v.online()
	if err := s.apply(ctx); err != nil {
		return err
	}
	if v.j.order.GetInteractive() {
		if err := v.attend(ctx); err != nil {
			return err
		}
	}
	outcome.Packages = s.packages(ctx)
	if err := s.seal(ctx); err != nil {
		return err
	}
	return s.leave(ctx)
}

// patchOffline changes a disk in an appliance: the guest's file system is mounted there, and never on the host.
func (j *job) patchOffline(ctx context.Context, target overlayDisk, outcome *v1.BuildOutcome) (*vm, error) {
	disk, err := j.disk(ctx, j.order.GetAppliance(), j.task.GetApplianceDigest(), applianceReserve)
	if err != nil {
		return nil, err
	}
	return j.boot(ctx, disk, &target, func(ctx context.Context, v *vm) error {
		if v.system.Windows {
			return errors.New("the appliance must be a Linux guest")
		}
		appliance := v.online()
		if err := appliance.prepare(ctx); err != nil {
			return err
		}
		if _, err := appliance.step(ctx, "mount the disk in the appliance", attachShell, targetRoot, targetDir); err != nil {
			return err
		}
		s := &site{v: v, root: targetRoot, dir: targetDir}
		if err := s.apply(ctx); err != nil {
			return err
		}
		outcome.Packages = s.packages(ctx)
		if err := s.seal(ctx); err != nil {
			return err
		}
		_, err := appliance.step(ctx, "unmount the disk in the appliance", detachShell, targetRoot, targetDir)
		return err
	})
}

// apply copies the files and runs the script.
func (s *site) apply(ctx context.Context) error {
	j := s.v.j
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := s.copyFiles(ctx); err != nil {
		return err
	}
	script := j.order.GetScript()
	if len(script) == 0 {
		return nil
	}
	if err := j.talk.progress("running the script", 0); err != nil {
		return err
	}
	limit := defaultScript
	if d := j.order.GetScriptTimeout(); d != nil {
		limit = d.AsDuration()
	}
	late := fmt.Errorf("the script did not end within %v", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	var cleaner cleaner
	status, err := s.run(ctx, script, func(piece []byte) error { return j.talk.output(cleaner.clean(piece)) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("run the script: %w", err)
	}
	if status != 0 {
		return fmt.Errorf("the script ended with exit status %d: nothing was published", status)
	}
	return nil
}

// seal takes from the system what only one machine may have, unless the order says that it stays.
func (s *site) seal(ctx context.Context) error {
	j := s.v.j
	if j.order.GetUnsealed() {
		return nil
	}
	if err := j.talk.progress("sealing", 0); err != nil {
		return err
	}
	if s.v.system.Windows {
		_, err := s.step(ctx, "seal the guest", sealPowerShell)
		return err
	}
	if _, err := s.step(ctx, "seal the guest", sealShell); err != nil {
		return err
	}
	if s.root != "" {
		return nil // the appliance trims
	}
	_, err := s.step(ctx, "trim the guest's disk", trimShell)
	return err
}

// publish sends what changed of a disk, and the manifest of the whole.
func (j *job) publish(ctx context.Context, disk overlayDisk, outcome *v1.BuildOutcome) (err error) {
	const what = "reading and sending what changed"
	if err := j.talk.progress(what, 0); err != nil {
		return err
	}
	parent, changes, err := j.b.disks.Changes(ctx, disk.life, disk.digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, changes.Close()) }()
	said := uint32(0)
	manifest, did, err := pack.Changed(ctx, parent, changes, j.b.codec, j.sink, func(at pack.Progress) {
		percent := uint32(at.Scanned * 100 / max(at.Size, 1))
		if percent >= said+10 && percent < 100 {
			said = percent
			_ = j.talk.progress(what, percent) // that nobody listens shows elsewhere
		}
	})
	if err != nil {
		return err
	}
	outcome.ReadBytes, outcome.SentBytes = did.Read, did.Sent
	return j.talk.manifest(manifest.Encoded())
}
