package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// check holds an object against the others: what it refers to must be there, what must not change must be the same.
// current is nil for a new object. The ops that it returns belong into the transaction that writes the object.
func (s *objectService) check(ctx context.Context, next, current store.Object) ([]store.Op, error) {
	switch next := next.(type) {
	case *v1.Calendar:
		before, _ := current.(*v1.Calendar)
		return s.checkCalendar(ctx, next, before)
	case *v1.Pool:
		before, _ := current.(*v1.Pool)
		mistakes := slices.Concat(checkPolicy(next.GetSpec()), checkUse(next.GetMeta().GetName(), next.GetSpec()),
			checkSchedule(next.GetSpec(), before.GetSpec(), time.Now()))
		if len(mistakes) > 0 {
			return nil, invalid(mistakes...)
		}
		if before != nil {
			if err := checkPoolChange(before.GetSpec(), next.GetSpec()); err != nil {
				return nil, err
			}
		}
		return s.checkPoolRefs(ctx, before.GetSpec(), next.GetSpec())
	}
	return nil, nil
}

func checkPoolChange(before, after *v1.PoolSpec) error {
	if before.GetZone() != after.GetZone() {
		return invalid(mistake{"spec.zone", fmt.Sprintf("cannot be changed (it is %q): desktops never move between zones; make another pool", before.GetZone())})
	}
	if had, wants := before.GetShape().GetDataDiskGib(), after.GetShape().GetDataDiskGib(); wants < had {
		return invalid(mistake{"spec.shape.dataDiskGib", fmt.Sprintf("cannot shrink from %d to %d: the disks hold users' data", had, wants)})
	}
	return nil
}

// checkPoolRefs looks at every reference that is new. A reference pins its object: the object is written back unchanged
// in the same transaction, so that a deletion of it that looked for users before this one came must look again.
func (s *objectService) checkPoolRefs(ctx context.Context, before, after *v1.PoolSpec) ([]store.Op, error) {
	var pinned []store.Op
	if before.GetZone() != after.GetZone() {
		zone, err := store.Get[*v1.Zone](ctx, s.store, after.GetZone())
		if err != nil {
			return nil, missing(err, "spec.zone: zone %q does not exist: apply a Zone of that name first", after.GetZone())
		}
		pinned = append(pinned, store.Update(zone))
	}
	if after.GetCalendar() != "" && before.GetCalendar() != after.GetCalendar() {
		calendar, err := store.Get[*v1.Calendar](ctx, s.store, after.GetCalendar())
		if err != nil {
			return nil, missing(err, "spec.calendar: calendar %q does not exist: apply a Calendar of that name first", after.GetCalendar())
		}
		pinned = append(pinned, store.Update(calendar))
	}
	if before.GetImage() != after.GetImage() || before.GetVersion() != after.GetVersion() {
		image, err := store.Get[*v1.Image](ctx, s.store, after.GetImage())
		if err != nil {
			return nil, missing(err, "spec.image: image %q does not exist: import it first with \"daybreak image import %s FILE\"", after.GetImage(), after.GetImage())
		}
		if err := checkVersion(image, after.GetVersion()); err != nil {
			return nil, err
		}
		pinned = append(pinned, store.Update(image))
	}
	return pinned, nil
}

func missing(err error, format string, args ...any) error {
	if errors.Is(err, store.ErrNotFound) {
		return status.Errorf(codes.FailedPrecondition, format, args...)
	}
	return err
}

// checkVersion makes sure that a version that a pool names can be run.
func checkVersion(image *v1.Image, number uint32) error {
	if number == 0 {
		return nil
	}
	name := image.GetMeta().GetName()
	var have []string
	for _, version := range image.GetStatus().GetVersions() {
		if version.GetNumber() != number {
			have = append(have, fmt.Sprint(version.GetNumber()))
			continue
		}
		if version.GetState() == v1.VersionState_VERSION_STATE_READY {
			return nil
		}
		state := strings.ToLower(strings.TrimPrefix(version.GetState().String(), "VERSION_STATE_"))
		return status.Errorf(codes.FailedPrecondition, "spec.version: version %d of image %q is %s; only a published one can be run (\"daybreak image publish %s %d\")",
			number, name, state, name, number)
	}
	return status.Errorf(codes.FailedPrecondition, "spec.version: image %q has no version %d; it has: %s", name, number, listed(have))
}

// listed names up to ten things for a message.
func listed(names []string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
