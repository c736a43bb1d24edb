package batch

import "fmt"

// Error tells why a body is not the batch that its header announces.
type Error struct {
	// Name of the refusal: those of docs/DATA_FILE.md section 1, the same in every language and in the golden vectors.
	Name string
	// Column at fault, if one is; otherwise empty.
	Column string
	// Detail says what was found.
	Detail string
}

func (e *Error) Error() string {
	if e.Column != "" {
		return fmt.Sprintf("batch is not valid: %s in column %s (%s)", e.Name, e.Column, e.Detail)
	}
	return fmt.Sprintf("batch is not valid: %s (%s)", e.Name, e.Detail)
}

func refuse(name, format string, values ...any) error {
	return &Error{Name: name, Detail: fmt.Sprintf(format, values...)}
}

func refuseColumn(column Column, name, format string, values ...any) error {
	return &Error{Name: name, Column: column.String(), Detail: fmt.Sprintf(format, values...)}
}
