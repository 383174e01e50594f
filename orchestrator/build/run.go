package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"daybreak/images"
	"daybreak/orchestrator/catalog"
	v1 "daybreak/proto/daybreak/v1"
)

// settleLimit bounds what is written at a build's end, whether or not anybody still waits for it.
const settleLimit = 30 * time.Second

// run does the job and writes down how it went.
func (j *job) run(ctx context.Context) error {
	begun, failed := "PatchStarted", "PatchFailed"
	if j.plan.order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK {
		begun, failed = "CheckStarted", "CheckFailed"
	}
	what := func() string {
		return fmt.Sprintf("%s of version %d on host %s, by %s", j.plan.word(), j.plan.version.GetNumber(), j.host, j.by)
	}
	l, agent, err := j.first(ctx)
	if err != nil {
		return j.ended(ctx, failed, what(), err)
	}
	text := what()
	if note := j.plan.order.GetNote(); note != "" {
		text += ": " + note
	}
	j.event(ctx, begun, text, false)
	result, err := j.result(ctx, l, agent)
	if err != nil {
		return j.ended(ctx, failed, what(), err)
	}
	// It is done, whether or not the admin still hears it: the version tells.
	return j.tell(&v1.BuildResponse{Say: &v1.BuildResponse_Result{Result: result}})
}

// result does the job with the agent that has come to its first leg.
func (j *job) result(ctx context.Context, l *leg, agent Agent) (*v1.BuildResult, error) {
	if err := j.progress(fmt.Sprintf("on host %s, from version %d", j.host, j.plan.version.GetNumber())); err != nil {
		j.relay.end(l)
		return nil, err
	}
	outcome, err := j.leg(ctx, j.plan, l, agent)
	switch {
	case err != nil:
		return nil, err
	case j.plan.order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK:
		return j.checked(ctx, outcome)
	}
	return j.patched(ctx, outcome)
}

// ended writes down why a job failed, and returns it.
func (j *job) ended(ctx context.Context, reason, what string, err error) error {
	why := err.Error()
	if ctx.Err() != nil {
		why = "ended by " + j.by + ", or the line to them broke"
	}
	j.event(ctx, reason, what+": "+why, true)
	j.relay.deps.Log.Warn().Err(err).Str("image", j.plan.image).Str("host", j.host).Str("by", j.by).Msg("build failed")
	return err
}

// checked is for a check of a version that there is. One that fails keeps its state: to withdraw it is for people to decide.
func (j *job) checked(ctx context.Context, outcome *v1.BuildOutcome) (*v1.BuildResult, error) {
	version, err := j.settle(ctx, j.plan.version, outcome, nil, false)
	if err != nil {
		return nil, err
	}
	return &v1.BuildResult{Version: version, SentBytes: outcome.GetSentBytes(), ReadBytes: outcome.GetReadBytes()}, nil
}

// patched makes a version of what a patch came to, and checks it.
func (j *job) patched(ctx context.Context, patch *v1.BuildOutcome) (*v1.BuildResult, error) {
	switch {
	case patch.GetError() != "":
		return nil, fmt.Errorf("host %s: %s: %w", j.host, clean(patch.GetError(), maxWhy), ErrFailed)
	case j.filesLeft > 0:
		return nil, fmt.Errorf("host %s ended the patch before it had all files: %w", j.host, ErrFailed)
	}
	result := &v1.BuildResult{SentBytes: patch.GetSentBytes(), ReadBytes: patch.GetReadBytes()}
	manifest, err := j.parse()
	if err != nil {
		return nil, err
	}
	if manifest.Digest().String() == j.plan.version.GetDigest() {
		j.event(ctx, "PatchUnchanged", fmt.Sprintf("the patch by %s changed nothing in version %d", j.by, j.plan.version.GetNumber()), false)
		result.Version, result.Unchanged = j.plan.version, true
		return result, nil
	}
	made, err := j.create(ctx, manifest)
	if err != nil {
		return nil, err
	}
	if made.GetState() != v1.VersionState_VERSION_STATE_DRAFT {
		result.Version = made // an earlier patch came to the same content, and it was checked then
		return result, nil
	}
	check, err := j.check(ctx, made)
	if err != nil {
		return nil, j.abandon(ctx, made, err)
	}
	if result.Version, err = j.settle(ctx, made, check, patch, true); err != nil {
		return nil, err
	}
	return result, nil
}

// check boots a version that was just made.
func (j *job) check(ctx context.Context, made *v1.ImageVersion) (*v1.BuildOutcome, error) {
	if err := j.progress(fmt.Sprintf("version %d is made: booting it as a check", made.GetNumber())); err != nil {
		return nil, err
	}
	plan := j.plan.check(made)
	l, agent, err := j.again(ctx, plan)
	if err != nil {
		return nil, err
	}
	return j.leg(ctx, plan, l, agent)
}

// parse reads the manifest that the host sent.
func (j *job) parse() (*images.Manifest, error) {
	manifest, err := images.Parse(j.manifest)
	if err != nil {
		return nil, fmt.Errorf("host %s sent a manifest that is none: %w: %w", j.host, err, ErrFailed)
	}
	if manifest.Size() != j.plan.version.GetSizeBytes() {
		return nil, fmt.Errorf("host %s sent the manifest of a disk of %d bytes, version %d has %d: %w",
			j.host, manifest.Size(), j.plan.version.GetNumber(), j.plan.version.GetSizeBytes(), ErrFailed)
	}
	return manifest, nil
}

// create takes the content in as a draft. It is not broken off: what it leaves is known to whoever called.
func (j *job) create(ctx context.Context, manifest *images.Manifest) (*v1.ImageVersion, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	parent := j.plan.version.GetNumber()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	log, err := j.keep(ctx, j.log.bytes())
	if err != nil {
		return nil, err
	}
	made, existed, err := j.relay.deps.Intake.CreateVersion(ctx, time.Now(), catalog.Draft{
		Image: j.plan.image, Note: j.plan.order.GetNote(), Parent: parent, By: j.by, Log: log, Manifest: manifest.Encoded(),
	})
	if err != nil {
		return nil, err
	}
	if existed {
		return made, j.usable(made)
	}
	j.event(ctx, "VersionCreated", fmt.Sprintf("version %d, made by %s from version %d on host %s: %s",
		made.GetNumber(), j.by, parent, j.host, orNone(j.plan.order.GetNote())), false)
	return made, nil
}

// usable says whether a version that the image had already can be the result of a patch.
func (j *job) usable(made *v1.ImageVersion) error {
	if made.GetCollected() || made.GetState() != v1.VersionState_VERSION_STATE_DRAFT && made.GetState() != v1.VersionState_VERSION_STATE_READY {
		return fmt.Errorf("the patch came to the very content of version %d of image %s, which was given up: %w", made.GetNumber(), j.plan.image, ErrRefused)
	}
	return nil
}

// settle writes down what came of a version's check; patch is what ended the patch before it, nil for none. With withdraw
// a version that failed is withdrawn.
func (j *job) settle(ctx context.Context, v *v1.ImageVersion, check, patch *v1.BuildOutcome, withdraw bool) (*v1.ImageVersion, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	if why := clean(check.GetError(), maxWhy); why != "" {
		return nil, j.failed(ctx, v, why, withdraw)
	}
	list := check.GetPackages()
	if list == "" {
		list = patch.GetPackages()
	}
	packages, err := j.keep(ctx, packageLines(list))
	if err != nil {
		return nil, err
	}
	said := clean(check.GetCheck(), maxWhy)
	marked, err := j.relay.deps.Intake.MarkChecked(ctx, time.Now(), j.plan.image, v.GetNumber(), said, packages)
	if err != nil {
		return nil, err
	}
	j.event(ctx, "VersionReady", fmt.Sprintf("version %d passed its check on host %s: %s", v.GetNumber(), j.host, orNone(said)), false)
	return marked, nil
}

// failed notes that a version did not pass its check, and says so.
func (j *job) failed(ctx context.Context, v *v1.ImageVersion, why string, withdraw bool) error {
	marked, err := j.relay.deps.Intake.MarkFailed(ctx, time.Now(), j.plan.image, v.GetNumber(), "failed: "+why, withdraw)
	if err != nil {
		return errors.Join(fmt.Errorf("version %d of image %s failed its check: %s: %w", v.GetNumber(), j.plan.image, why, ErrFailed), err)
	}
	became := "stays as it was"
	if marked.GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN {
		became = "is withdrawn"
		j.withdrawn(ctx, v, why)
	}
	return fmt.Errorf("version %d of image %s failed its check on host %s and %s: %s: %w", v.GetNumber(), j.plan.image, j.host, became, why, ErrFailed)
}

// abandon is for a version whose check did not come to an end. When nobody waits for it any more it is withdrawn; when the
// fault is the house's it stays a draft, whole and unchecked.
func (j *job) abandon(ctx context.Context, made *v1.ImageVersion, why error) error {
	gaveUp := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	text := "not checked: " + clean(why.Error(), maxWhy)
	if gaveUp {
		text = "not checked: the patch was ended by " + j.by
	}
	if _, err := j.relay.deps.Intake.MarkFailed(ctx, time.Now(), j.plan.image, made.GetNumber(), text, gaveUp); err != nil {
		return errors.Join(why, err)
	}
	if gaveUp {
		j.withdrawn(ctx, made, text)
		return why
	}
	return fmt.Errorf("version %d of image %s is made and was not checked; check it with 'daybreak image check %s %d': %w",
		made.GetNumber(), j.plan.image, j.plan.image, made.GetNumber(), why)
}

func (j *job) withdrawn(ctx context.Context, v *v1.ImageVersion, why string) {
	j.event(ctx, "VersionWithdrawn", fmt.Sprintf("version %d: %s", v.GetNumber(), why), true)
}

// keep stores some text as a chunk and returns its digest, "" for no text.
func (j *job) keep(ctx context.Context, text []byte) (string, error) {
	if len(text) == 0 {
		return "", nil
	}
	chunk := images.Chunk{Digest: images.Sum(text), Sealed: j.relay.deps.Codec.Seal(text)}
	if _, err := j.relay.deps.Chunks.Put(ctx, []images.Chunk{chunk}); err != nil {
		return "", fmt.Errorf("keep what the build said: %w", err)
	}
	return chunk.Digest.String(), nil
}

// packageLines reads a guest's list of packages: a name and a version a line, nothing that is not for print.
func packageLines(list string) []byte {
	var kept strings.Builder
	for line := range strings.Lines(list) {
		// Names on Windows have spaces in them.
		fields := strings.Fields(clean(line, 512))
		if last := len(fields) - 1; last > 0 && kept.Len()+len(line) <= images.ChunkBytes {
			kept.WriteString(strings.Join(fields[:last], "_") + " " + fields[last] + "\n")
		}
	}
	return []byte(kept.String())
}

// event writes an event about the image, whoever has gone meanwhile.
func (j *job) event(ctx context.Context, reason, message string, warning bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	image := &v1.Image{Meta: &v1.Meta{Name: j.plan.image}}
	if err := j.relay.deps.Objects.Event(ctx, time.Now(), image, reason, message, warning); err != nil {
		j.relay.deps.Log.Error().Err(err).Str("reason", reason).Str("message", message).Msg("event not written")
	}
}

func orNone(text string) string {
	if text == "" {
		return "nothing was said"
	}
	return text
}
