package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// How many days a preview shows: by default, and at most.
const (
	previewDays = 14
	maxPreview  = 1100
)

func (a *app) calendarCommand() *cobra.Command {
	return group("calendar", "See when a calendar opens, and bring holidays in", a.calendarPreviewCommand(), a.calendarImportCommand())
}

func (a *app) calendarPreviewCommand() *cobra.Command {
	var from, to, format string
	c := &cobra.Command{
		Use: "preview NAME", Short: "Show the hours of each day, and why it is closed",
		Long: `Preview shows what a calendar, with all that it inherits, says of each date: its hours, the holiday or one-off opening,
and whether it is a blackout day. Dates and hours are those of the calendar's time zone. On a day on which clocks are
set, hours are those that clocks show. A warning says when it shows days of a year for which holidays are not listed yet.`,
		Example: `  daybreak calendar preview office
  daybreak calendar preview office --from 2027-04-26 --to 2027-05-09
  daybreak calendar preview office -o json     with the instants of opening and closing`,
		Args: exactly("NAME"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_CALENDAR),
		RunE: func(c *cobra.Command, args []string) error {
			first, err := parseDay("--from", from)
			if err != nil {
				return err
			}
			last, err := parseDay("--to", to)
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				found, resolved, err := fetchCalendar(c.Context(), conn, args[0])
				if err != nil {
					return err
				}
				from, to, err := span(first, last, calendar.DateOf(time.Now().In(resolved.Zone())))
				if err != nil {
					return err
				}
				if err := a.preview(args[0], resolved, from, to, format); err != nil {
					return err
				}
				line, err := calendar.Line(found, lookupCalendar(c.Context(), conn))
				if err != nil {
					return err
				}
				for _, end := range show.ListEnds(line, to.Year) {
					fmt.Fprintln(a.errs, "warning: listed are "+end+" only: list later ones ('daybreak calendar import')")
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&from, "from", "", "first date, or today, tomorrow, yesterday (default today)")
	c.Flags().StringVar(&to, "to", "", fmt.Sprintf("last date, or a word for it (default %d days from the first on)", previewDays))
	formatFlag(c, &format, formatTable, formatJSON)
	return c
}

// span fills in what was not said: today, and two weeks.
func span(first, last *day, today calendar.Date) (from, to calendar.Date, err error) {
	from = today
	if first != nil {
		from = first.on(today)
	}
	to = from.Add(previewDays - 1)
	if last != nil {
		to = last.on(today)
	}
	switch {
	case to.Compare(from) < 0:
		return from, to, wrongUsage("--to %v is before %v: there is nothing to show", to, from)
	case to.Compare(from.Add(maxPreview)) >= 0:
		return from, to, wrongUsage("from %v to %v are too many days; at most %d", from, to, maxPreview)
	}
	return from, to, nil
}

// lookupCalendar gets calendars from the server.
func lookupCalendar(ctx context.Context, conn grpc.ClientConnInterface) calendar.Lookup {
	return func(name string) (*v1.Calendar, error) {
		o, err := get(ctx, conn, v1.Kind_KIND_CALENDAR, name)
		if err != nil {
			return nil, err
		}
		found, ok := o.(*v1.Calendar)
		if !ok {
			return nil, errEmpty
		}
		return found, nil
	}
}

// fetchCalendar gets a calendar, and resolves it with its ancestors.
func fetchCalendar(ctx context.Context, conn grpc.ClientConnInterface, name string) (*v1.Calendar, *calendar.Resolved, error) {
	fetch := lookupCalendar(ctx, conn)
	found, err := fetch(name)
	if err != nil {
		return nil, nil, err
	}
	resolved, err := calendar.Resolve(found, fetch)
	if err != nil {
		return nil, nil, fmt.Errorf("read calendar %q: %w", name, err)
	}
	return found, resolved, nil
}

// previewDay is a day as -o json has it.
type previewDay struct {
	Date     string           `json:"date"`
	Weekday  string           `json:"weekday"`
	Openings []previewOpening `json:"openings"`
	// Closed says why there are no openings.
	Closed   string  `json:"closed,omitempty"`
	Holiday  *string `json:"holiday,omitempty"`
	Blackout *string `json:"blackout,omitempty"`
}

type previewOpening struct {
	Open  time.Time `json:"open"`
	Close time.Time `json:"close"`
	Name  string    `json:"name,omitempty"`
}

func (a *app) preview(name string, resolved *calendar.Resolved, from, to calendar.Date, format string) error {
	answer := struct {
		Calendar string       `json:"calendar"`
		TimeZone string       `json:"timeZone"`
		Days     []previewDay `json:"days"`
	}{Calendar: name, TimeZone: resolved.Zone().String()}
	table := show.Table{Header: []string{"DATE", "DAY", "HOURS", "WHY"}}
	for day := range resolved.Days(from, to) {
		answer.Days = append(answer.Days, jsonDay(day))
		table.Rows = append(table.Rows, show.Day(day))
	}
	if format == formatJSON {
		text, err := json.Marshal(answer)
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		return printIndented(a.out, text)
	}
	return show.NewWriter(a.out).Table(table)
}

func jsonDay(day calendar.Day) previewDay {
	d := previewDay{Date: day.Date.String(), Weekday: day.Date.Weekday().String(), Openings: []previewOpening{}}
	for _, o := range day.Openings {
		d.Openings = append(d.Openings, previewOpening{o.Open, o.Close, o.Name})
	}
	if day.Holiday {
		d.Holiday = &day.HolidayName
	}
	if day.Blackout {
		d.Blackout = &day.BlackoutName
	}
	if len(day.Openings) == 0 {
		d.Closed = show.ClosedBecause(day)
	}
	return d
}
