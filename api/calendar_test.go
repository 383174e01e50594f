package api

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

func TestCalendarRules(t *testing.T) {
	days := func(d ...v1.Weekday) []v1.Weekday { return d }
	monday, tuesday := v1.Weekday_WEEKDAY_MONDAY, v1.Weekday_WEEKDAY_TUESDAY
	r := newRig(t)
	for _, row := range []struct {
		name string
		spec *v1.CalendarSpec
		want string
	}{
		{"good", &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Hours: []*v1.OfficeHours{
			{Days: days(monday, tuesday), Open: "08:30", Close: "12:00"}, {Days: days(monday), Open: "12:00", Close: "24:00"},
		}, Holidays: []*v1.CalendarDay{{Date: "2028-02-29"}}, Blackouts: []*v1.CalendarDay{{Date: "2028-02-29"}}}, ""},
		{"zone", &v1.CalendarSpec{TimeZone: "Asia/Tokio"}, `spec.timeZone: "Asia/Tokio"`},
		{"machine's own zone", &v1.CalendarSpec{TimeZone: "Local"}, "spec.timeZone"},
		{"path as zone", &v1.CalendarSpec{TimeZone: "../../etc/passwd"}, "spec.timeZone"},
		{"ends before it begins", &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{{Days: days(monday), Open: "22:00", Close: "06:00"}}}, "spec.hours[0].close: 06:00 is not after open 22:00"},
		{"empty", &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{{Days: days(monday), Open: "08:00", Close: "08:00"}}}, "spec.hours[0].close"},
		{"overlap", &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{
			{Days: days(monday), Open: "13:00", Close: "17:00"}, {Days: days(tuesday, monday), Open: "08:00", Close: "13:01"},
		}}, "spec.hours[0]: 13:00-17:00 overlaps spec.hours[1], 08:00-13:01"},
		{"29 February", &v1.CalendarSpec{TimeZone: "UTC", Holidays: []*v1.CalendarDay{{Date: "2027-02-29"}}}, `spec.holidays[0].date: "2027-02-29" is not a date`},
		{"31 April", &v1.CalendarSpec{TimeZone: "UTC", Blackouts: []*v1.CalendarDay{{Date: "2027-04-31"}}}, "spec.blackouts[0].date"},
		{"twice", &v1.CalendarSpec{TimeZone: "UTC", Holidays: []*v1.CalendarDay{{Date: "2027-01-01"}, {Date: "2027-01-01"}}}, "spec.holidays[1].date: 2027-01-01 stands twice"},
		{"25 o'clock", &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{{Days: days(monday), Open: "08:00", Close: "25:00"}}}, "spec.hours[0].close"},
		{"unknown set", &v1.CalendarSpec{TimeZone: "UTC", HolidaySets: []string{"jp", "atlantis"}}, `spec.holidaySets[1]: there is no built-in set "atlantis"`},
		{"set twice", &v1.CalendarSpec{TimeZone: "UTC", HolidaySets: []string{"jp", "jp"}}, "spec.holidaySets"},
		{"one-off on no date", &v1.CalendarSpec{TimeZone: "UTC", Openings: []*v1.CalendarOpening{{Date: "2027-02-29", Open: "08:00", Close: "09:00"}}}, "spec.openings[0].date"},
		{"one-off backwards", &v1.CalendarSpec{TimeZone: "UTC", Openings: []*v1.CalendarOpening{{Date: "2027-02-28", Open: "09:00", Close: "08:00"}}}, "spec.openings[0].close: 08:00 is not after open 09:00"},
		{"one-off overlap", &v1.CalendarSpec{TimeZone: "UTC", Openings: []*v1.CalendarOpening{
			{Date: "2027-02-28", Open: "08:00", Close: "10:00"}, {Date: "2027-02-28", Open: "09:00", Close: "11:00"},
		}}, "spec.openings[1]: 09:00-11:00 overlaps spec.openings[0], 08:00-10:00"},
		{"path as parent", &v1.CalendarSpec{TimeZone: "UTC", Parent: "../etc"}, "spec.parent"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := r.apply(&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: row.spec})
			if row.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, codes.InvalidArgument, row.want)
		})
	}
}

func heir(name, parent string) *v1.Calendar {
	return &v1.Calendar{Meta: &v1.Meta{Name: name}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Parent: parent}}
}

func TestCalendarParents(t *testing.T) {
	r := newRig(t)
	_, err := r.apply(heir("branch", "town"))
	wantCode(t, err, codes.FailedPrecondition, `spec.parent: calendar "town" does not exist`)
	for _, c := range []*v1.Calendar{heir("town", ""), heir("branch", "town"), heir("desk", "branch")} {
		if _, err := r.apply(c); err != nil {
			t.Fatal(err)
		}
	}
	_, err = r.apply(heir("town", "desk"))
	wantCode(t, err, codes.InvalidArgument, "spec.parent: a calendar cannot inherit from itself: town → desk → branch → town")
	_, err = r.apply(heir("town", "town"))
	wantCode(t, err, codes.InvalidArgument, "spec.parent: a calendar cannot inherit from itself: town → town")
	_, err = r.objects().Delete(t.Context(), &v1.DeleteRequest{Kind: v1.Kind_KIND_CALENDAR, Name: "town"})
	wantCode(t, err, codes.FailedPrecondition, "calendar town is in use by calendar branch")
	for _, name := range []string{"desk", "branch", "town"} {
		if _, err := r.objects().Delete(t.Context(), &v1.DeleteRequest{Kind: v1.Kind_KIND_CALENDAR, Name: name}); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
}

// A line can grow too long at either end.
func TestCalendarDepth(t *testing.T) {
	r := newRig(t)
	parent := ""
	for i := range calendar.MaxDepth {
		name := fmt.Sprintf("c%d", i)
		if _, err := r.apply(heir(name, parent)); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
	_, err := r.apply(heir("lower", parent))
	wantCode(t, err, codes.InvalidArgument, "spec.parent: lower → c7", "is 9 calendars deep")
	if _, err := r.apply(heir("top", "")); err != nil {
		t.Fatal(err)
	}
	_, err = r.apply(heir("c0", "top"))
	wantCode(t, err, codes.InvalidArgument, "spec.parent: c7 → ", "c0 → top is 9 calendars deep")
}

// Two halves of a ring, closed at once from both sides, do not become one.
func TestCalendarRingRace(t *testing.T) {
	for range 10 {
		r := newRig(t)
		for _, c := range []*v1.Calendar{heir("c", ""), heir("b", "c"), heir("a", ""), heir("d", "a")} {
			if _, err := r.apply(c); err != nil {
				t.Fatal(err)
			}
		}
		client := r.objects()
		var closing errgroup.Group
		codesOf := make(chan error, 2)
		for _, half := range []*v1.Calendar{heir("a", "b"), heir("c", "d")} {
			closing.Go(func() error {
				_, err := client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(half)})
				codesOf <- err
				return nil
			})
		}
		_ = closing.Wait()
		failed := 0
		for range 2 {
			if err := <-codesOf; err != nil {
				failed++
				wantCode(t, err, codes.InvalidArgument, "cannot inherit from itself")
			}
		}
		if failed != 1 {
			t.Fatalf("%d of two halves of a ring were refused", failed)
		}
	}
}
