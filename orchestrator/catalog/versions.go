package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Reasons of the events about images.
const (
	ReasonCreated   = "VersionCreated"
	ReasonPublished = "VersionPublished"
	ReasonRetired   = "VersionRetired"
	ReasonWithdrawn = "VersionWithdrawn"
	ReasonCollected = "GarbageCollected"
)

// changeAttempts bounds how often a change is tried again after a conflict.
const changeAttempts = 10

// notice is what the event says that tells of a change of an image.
type notice struct {
	reason, message string
	warning         bool
}

// change lets work change a copy of an image, and commits it with an event that tells of it. When somebody else was quicker it
// does so again, so work may be called several times. What work leaves as it is is not written.
func change(ctx context.Context, st *store.Store, now time.Time, name string, work func(*v1.Image) (notice, error)) (*v1.Image, error) {
	for attempt := 1; ; attempt++ {
		current, err := store.Get[*v1.Image](ctx, st, name)
		if err != nil {
			return nil, err
		}
		changed := proto.CloneOf(current)
		note, err := work(changed)
		if err != nil || proto.Equal(current, changed) {
			return current, err
		}
		_, err = st.Commit(ctx, store.Update(changed), store.Create(store.NewEvent(now, current, note.reason, note.message, note.warning)))
		if err == nil {
			return changed, nil
		}
		if !errors.Is(err, store.ErrConflict) || attempt == changeAttempts {
			return nil, err
		}
	}
}

// Publish makes a draft ready and lets the image point to it, so that pools which follow it move there. A version that is ready
// already becomes the current one again. Errors wrap ErrRefused or the store's sentinels.
func (in *Intake) Publish(ctx context.Context, now time.Time, image string, number uint32) (*v1.ImageVersion, error) {
	published, err := change(ctx, in.objects, now, image, func(image *v1.Image) (notice, error) {
		return publish(now, image, number, in.trusted)
	})
	if err != nil {
		return nil, fmt.Errorf("publish version %d of image %s: %w", number, image, err)
	}
	return store.Version(published, number), nil
}

func publish(now time.Time, image *v1.Image, number uint32, trusted *sign.Publishers) (notice, error) {
	v := store.Version(image, number)
	switch {
	case v == nil:
		return notice{}, fmt.Errorf("there is no such version: %w", store.ErrNotFound)
	case image.GetMeta().GetDeletion() != nil:
		return notice{}, fmt.Errorf("the image is being deleted: %w", ErrRefused)
	case v.GetCollected():
		return notice{}, fmt.Errorf("its content is no longer in the image store; import the same disk again: %w", ErrRefused)
	case v.GetCheckFailed():
		return notice{}, fmt.Errorf("its check failed (%s): mend it with a patch, or check it again with 'daybreak image check': %w", v.GetCheck(), ErrRefused)
	}
	if err := trusted.Check(image.GetMeta().GetName(), v.GetDigest(), v.GetSignatures()); err != nil {
		return notice{}, fmt.Errorf("%w: import the same disk again, and it is signed: %w", err, ErrRefused)
	}
	switch v.GetState() {
	case v1.VersionState_VERSION_STATE_DRAFT:
		setState(now, v, v1.VersionState_VERSION_STATE_READY)
	case v1.VersionState_VERSION_STATE_READY:
	default:
		return notice{}, fmt.Errorf("it is %s, and only a draft or a ready version can be published: %w", stateWord(v.GetState()), ErrRefused)
	}
	image.Status.Current = number
	return notice{reason: ReasonPublished, message: fmt.Sprintf("version %d is published and current", number)}, nil
}

func setState(now time.Time, v *v1.ImageVersion, state v1.VersionState) {
	if v.GetState() != state {
		v.State, v.StateSince = state, timestamppb.New(now)
	}
}

func stateWord(state v1.VersionState) string {
	switch state {
	case v1.VersionState_VERSION_STATE_RETIRED:
		return "retired"
	case v1.VersionState_VERSION_STATE_WITHDRAWN:
		return "withdrawn"
	default:
		return state.String()
	}
}

// Retire ends the use of a version, and refuses while a pool or a desktop uses it. When it is withdrawn nobody is asked: what
// runs goes on, and nothing is started with it any more. If it was the current version, the newest ready one that is older
// becomes current, since that is what proved itself before; the image has none when there is no such. Errors wrap ErrRefused
// or the store's sentinels.
//
// Whoever begins to use a version writes its image back in the same transaction, so that this one, if it looked for users
// before, must look again.
func (in *Intake) Retire(ctx context.Context, now time.Time, image string, number uint32, withdraw bool, reason string) (*v1.ImageVersion, error) {
	retired, err := change(ctx, in.objects, now, image, func(image *v1.Image) (notice, error) {
		if withdraw {
			return retire(now, image, number, v1.VersionState_VERSION_STATE_WITHDRAWN, reason)
		}
		users, err := readUsers(ctx, in.objects)
		if err != nil {
			return notice{}, err
		}
		for _, usage := range Usage(image, users) {
			if by := usersOf(usage); by != "" && usage.GetNumber() == number {
				return notice{}, fmt.Errorf("it is in use by %s; give them another version first, or withdraw it if it is bad: %w", by, ErrRefused)
			}
		}
		return retire(now, image, number, v1.VersionState_VERSION_STATE_RETIRED, reason)
	})
	if err != nil {
		did := "retire"
		if withdraw {
			did = "withdraw"
		}
		return nil, fmt.Errorf("%s version %d of image %s: %w", did, number, image, err)
	}
	return store.Version(retired, number), nil
}

func retire(now time.Time, image *v1.Image, number uint32, state v1.VersionState, reason string) (notice, error) {
	v := store.Version(image, number)
	if v == nil {
		return notice{}, fmt.Errorf("there is no such version: %w", store.ErrNotFound)
	}
	if v.GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN && state == v1.VersionState_VERSION_STATE_RETIRED {
		return notice{}, fmt.Errorf("it is withdrawn already: %w", ErrRefused)
	}
	setState(now, v, state)
	if reason != "" {
		v.Reason = reason
	}
	note := notice{reason: ReasonRetired, message: fmt.Sprintf("version %d is retired", number)}
	if state == v1.VersionState_VERSION_STATE_WITHDRAWN {
		note = notice{reason: ReasonWithdrawn, message: fmt.Sprintf("version %d is withdrawn: nothing is started with it any more", number), warning: true}
	}
	if reason != "" {
		note.message += " (" + reason + ")"
	}
	if image.GetStatus().GetCurrent() != number {
		return note, nil
	}
	image.Status.Current = 0
	for _, older := range image.GetStatus().GetVersions() {
		if older.GetNumber() < number && older.GetState() == v1.VersionState_VERSION_STATE_READY {
			image.Status.Current = max(image.Status.Current, older.GetNumber())
		}
	}
	if current := image.Status.Current; current != 0 {
		note.message += fmt.Sprintf("; version %d is current again", current)
	} else {
		note.message += "; the image has no current version until one is published"
	}
	return note, nil
}
