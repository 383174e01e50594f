package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/hostagent"
	"daybreak/images/pack"
	"daybreak/images/push"
	v1 "daybreak/proto/daybreak/v1"
)

// maxFileBytes is what all files of a build have together, by the order's rule.
const maxFileBytes = 4 << 30

// job is one build.
type job struct {
	b      *Builder
	log    zerolog.Logger
	talk   *talk
	source hostagent.Source
	sink   pack.Sink
	task   *v1.BuildAssignment
	order  *v1.BuildOrder
	// memoryMiB is what the host was asked for.
	memoryMiB uint32
	// lives are what is to be taken away at the end: VMs and their overlays.
	lives []hostagent.Life
}

// do does one build that was accepted, and leaves nothing of it.
func (b *Builder) do(ctx context.Context, call hostagent.BuildCall) {
	log := b.log.With().Str("build", call.ID).Logger()
	conn, err := call.Dial()
	if err != nil {
		log.Warn().Err(err).Msg("build not begun: no connection to the control plane")
		return
	}
	defer func() { _ = conn.Close() }()
	client := v1.NewAgentServiceClient(conn)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := client.Build(ctx)
	if err != nil {
		log.Warn().Err(err).Msg("build not begun")
		return
	}
	late := time.AfterFunc(assignmentTimeout, func() { cancel(errors.New("no assignment came in time")) })
	talk, task, err := begin(stream, call.ID)
	late.Stop()
	if err != nil {
		log.Warn().Err(errors.Join(err, context.Cause(ctx))).Msg("build not begun")
		return
	}
	j := &job{
		b: b, talk: talk, task: task, order: task.GetOrder(), source: call.Source, sink: push.To(client), memoryMiB: call.MemoryMiB,
		log: log.With().Str("image", task.GetOrder().GetImage()).Logger(),
	}
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return talk.listen(running) })
	group.Go(func() error {
		j.end(j.run(running))
		// The other side ends the stream when it has heard; not for ever is that waited for.
		time.AfterFunc(endTimeout, func() { cancel(nil) })
		return nil
	})
	_ = group.Wait() // how it ended was told and logged
}

// end tells the outcome.
func (j *job) end(outcome *v1.BuildOutcome, err error) {
	if err != nil {
		j.log.Warn().Err(err).Msg("build failed")
		outcome = &v1.BuildOutcome{Error: clean(err.Error(), maxError)}
	} else {
		j.log.Info().Uint64("read_bytes", outcome.GetReadBytes()).Uint64("sent_bytes", outcome.GetSentBytes()).Msg("build done")
	}
	if err := j.talk.send(&v1.BuildUpdate{Say: &v1.BuildUpdate_Outcome{Outcome: outcome}}); err != nil {
		j.log.Debug().Err(err).Msg("nobody heard how the build ended")
	}
	_ = j.talk.stream.CloseSend()
}

// run does what is ordered. When it returns, nothing of the build is left on the host.
func (j *job) run(ctx context.Context) (*v1.BuildOutcome, error) {
	j.log.Info().Stringer("kind", j.order.GetKind()).Msg("build begun")
	defer func() {
		// The newest first: a VM before the disk that it works on.
		for _, life := range slices.Backward(j.lives) {
			j.b.clear(ctx, life)
		}
	}()
	do := j.patch
	if j.order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK {
		do = j.check
	}
	err := j.accept()
	var outcome *v1.BuildOutcome
	if err == nil {
		outcome, err = do(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // whatever else went wrong then
	}
	return outcome, err
}

// accept says why the order cannot be carried out here, as far as that is known before.
func (j *job) accept() error {
	o := j.order
	var files uint64
	for _, file := range o.GetFiles() {
		files += file.GetSize()
	}
	_, hasZone := j.b.cfg.Zones[o.GetZone()]
	switch {
	case o.GetKind() != v1.BuildKind_BUILD_KIND_CHECK && o.GetKind() != v1.BuildKind_BUILD_KIND_PATCH:
		return fmt.Errorf("this agent does no builds of kind %v: is it older than the control plane?", o.GetKind())
	case files > maxFileBytes:
		return fmt.Errorf("the files have %d bytes together, more than %d", files, uint64(maxFileBytes))
	case o.GetZone() != "" && !hasZone:
		return fmt.Errorf("this host has no network of zone %s: choose another host, or build without a NIC", o.GetZone())
	case memoryOf(o) > j.memoryMiB:
		return fmt.Errorf("the build's VM has %d MiB, and this host was asked for %d", memoryOf(o), j.memoryMiB)
	case o.GetOffline() && (o.GetInteractive() || j.task.GetApplianceDigest() == ""):
		return errors.New("an offline build needs an appliance, and has no screen to wait at")
	}
	trusted := j.b.cfg.Publishers
	if err := hostagent.CheckImage(trusted, o.GetImage(), j.task.GetDigest(), j.task.GetSignatures()); err != nil {
		return fmt.Errorf("version of %s is not run: %w", o.GetImage(), err)
	}
	if !o.GetOffline() {
		return nil
	}
	if err := hostagent.CheckImage(trusted, o.GetAppliance(), j.task.GetApplianceDigest(), j.task.GetApplianceSignatures()); err != nil {
		return fmt.Errorf("version of the appliance %s is not run: %w", o.GetAppliance(), err)
	}
	return nil
}

func memoryOf(o *v1.BuildOrder) uint32 {
	if memory := o.GetShape().GetMemoryMib(); memory != 0 {
		return memory
	}
	return 2048
}

// check boots the version and says how that went.
func (j *job) check(ctx context.Context) (*v1.BuildOutcome, error) {
	disk, err := j.disk(ctx, j.order.GetImage(), j.task.GetDigest(), defaultReserve)
	if err != nil {
		return nil, err
	}
	outcome := &v1.BuildOutcome{}
	_, err = j.boot(ctx, disk, nil, func(ctx context.Context, v *vm) error {
		took := time.Since(v.begun).Round(time.Second)
		outcome.Check = clean(fmt.Sprintf("guest agent answered %d s after the start; %s", int(took.Seconds()), v.system.describe()), maxCheck)
		outcome.Packages = v.online().packages(ctx)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return outcome, nil
}

func (s System) describe() string {
	text := "host name " + s.Hostname
	if s.Hostname == "" {
		text = "it has no host name"
	}
	if s.Name != "" {
		text += "; " + s.Name
	}
	return text
}
