// CLineEditor: a line of input with editing, history and suggestions, by libedit.
//
// Swift can call neither el_set nor history: both are variadic. This is all of libedit that fpx needs, and no more.
// One thread at a time may use an editor.

#ifndef CLINEEDITOR_H
#define CLINEEDITOR_H

#include <stdio.h>

/// What to do after a suggestion key. Both are from malloc, or NULL; the editor frees them.
struct fpx_suggestion {
    /// Is inserted at the cursor.
    char *insert;
    /// Is printed below the line, which is then drawn again.
    char *print;
};

/// Asked when Tab or '?' is pressed. `line` is what stands left of the cursor; `key` is '\t' or '?'.
typedef struct fpx_suggestion (*fpx_suggest)(void *context, const char *line, int key);

typedef struct fpx_line_editor fpx_line_editor;

/// An editor on the terminal of standard input and output, or NULL with errno.
/// From here on SIGINT does nothing: Ctrl-C is a key that ends fpx_line_editor_read.
fpx_line_editor *fpx_line_editor_open(const char *program, fpx_suggest suggest, void *context);

/// Loads `lines` of history at most from a file, and keeps that file up to date from now on (mode 0600).
/// A file that is not there is made at the first line. -1 with errno: it is there but no history, and is left alone.
int fpx_line_editor_history(fpx_line_editor *editor, const char *path, int lines);

/// The next line, without its end, from malloc. NULL with errno 0: the end of input; with EINTR: Ctrl-C.
char *fpx_line_editor_read(fpx_line_editor *editor, const char *prompt);

/// Puts the terminal back as it was.
void fpx_line_editor_close(fpx_line_editor *editor);

#endif
