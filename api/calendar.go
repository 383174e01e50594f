package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// checkCalendar holds a calendar against what the calendar room knows, its ancestors and the calendars that inherit from
// it. A new line of inheritance is pinned as a whole: two calls at once could otherwise close a ring that neither of them
// sees.
func (s *objectService) checkCalendar(ctx context.Context, next, current *v1.Calendar) ([]store.Op, error) {
	if mistakes := calendar.Check(next.GetSpec()); len(mistakes) > 0 {
		return nil, refused(mistakes)
	}
	if current.GetSpec().GetParent() == next.GetSpec().GetParent() {
		return nil, nil
	}
	all, _, err := store.List[*v1.Calendar](ctx, s.store)
	if err != nil {
		return nil, err
	}
	byName := map[string]*v1.Calendar{}
	for _, each := range all {
		byName[each.GetMeta().GetName()] = each
	}
	byName[next.GetMeta().GetName()] = next
	lookup := func(name string) (*v1.Calendar, error) {
		if found := byName[name]; found != nil {
			return found, nil
		}
		return nil, calendar.ErrNoParent
	}
	line, err := calendar.Line(next, lookup)
	if err != nil {
		return nil, parentRefused(next, err)
	}
	for _, each := range byName {
		// An heir has this calendar in its line; the change may have made that too long.
		if _, err := calendar.Line(each, lookup); errors.As(err, new(calendar.Mistakes)) {
			return nil, parentRefused(next, err)
		}
	}
	var pinned []store.Op
	for _, ancestor := range line[1:] {
		pinned = append(pinned, store.Update(ancestor))
	}
	return pinned, nil
}

// parentRefused says why a calendar cannot inherit as it wants to.
func parentRefused(next *v1.Calendar, err error) error {
	var mistakes calendar.Mistakes
	switch {
	case errors.As(err, &mistakes):
		return refused(mistakes)
	case errors.Is(err, calendar.ErrNoParent):
		return status.Errorf(codes.FailedPrecondition, "spec.parent: calendar %q does not exist: apply a Calendar of that name first", next.GetSpec().GetParent())
	}
	return fmt.Errorf("check the parents: %w", err)
}

func refused(found calendar.Mistakes) error {
	var mistakes []mistake
	for _, each := range found {
		mistakes = append(mistakes, mistake{each.Field, each.Reason})
	}
	return invalid(mistakes...)
}

// heirsOf are the calendars that inherit from one, as messages name them.
func (s *objectService) heirsOf(ctx context.Context, name string) ([]string, error) {
	all, _, err := store.List[*v1.Calendar](ctx, s.store)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(c *v1.Calendar) bool { return c.GetSpec().GetParent() != name })
	var heirs []string
	for _, heir := range all {
		heirs = append(heirs, store.RefOf(heir).String())
	}
	return heirs, nil
}
