#define _GNU_SOURCE
#include "CLineEditor.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fpx_line_editor {
    EditLine *line;
    History *history;
    char *history_path;
    const char *prompt;
    fpx_suggest suggest;
    void *context;
    int interrupted;
};

// While a command runs, Ctrl-C is no reason to lose the shell.
static void ignore(int signal) { (void)signal; }

// While a line is edited, Ctrl-C is a key: what libedit does after a signal differs between its versions.
static unsigned char interrupt(EditLine *line, int key) {
    (void)key;
    fpx_line_editor *editor;
    el_get(line, EL_CLIENTDATA, &editor);
    editor->interrupted = 1;
    return CC_EOF;
}

static char *prompt_of(EditLine *line) {
    fpx_line_editor *editor;
    el_get(line, EL_CLIENTDATA, &editor);
    return (char *)editor->prompt;
}

static unsigned char suggest(EditLine *line, int key) {
    fpx_line_editor *editor;
    el_get(line, EL_CLIENTDATA, &editor);
    const LineInfo *info = el_line(line);
    char *left = strndup(info->buffer, (size_t)(info->cursor - info->buffer));
    if (!left) return CC_ERROR;
    struct fpx_suggestion answer = editor->suggest(editor->context, left, key);
    free(left);
    unsigned char action = CC_NORM;
    if (answer.insert && el_insertstr(line, answer.insert) == 0) action = CC_REFRESH;
    if (answer.print) {
        FILE *out;
        el_get(line, EL_GETFP, 1, &out);
        fprintf(out, "\n%s", answer.print);
        fflush(out);
        action = CC_REDISPLAY;
    }
    free(answer.insert);
    free(answer.print);
    return action;
}

fpx_line_editor *fpx_line_editor_open(const char *program, fpx_suggest callback, void *context) {
    fpx_line_editor *editor = calloc(1, sizeof *editor);
    if (!editor) return NULL;
    setlocale(LC_CTYPE, "");
    editor->suggest = callback;
    editor->context = context;
    editor->prompt = "";
    editor->line = el_init(program, stdin, stdout, stderr);
    editor->history = history_init();
    if (!editor->line || !editor->history) {
        fpx_line_editor_close(editor);
        errno = ENOMEM;
        return NULL;
    }
    struct sigaction action = {.sa_handler = ignore};
    sigaction(SIGINT, &action, NULL);
    el_set(editor->line, EL_CLIENTDATA, editor);
    el_set(editor->line, EL_PROMPT, prompt_of);
    el_set(editor->line, EL_EDITOR, "emacs");
    // The editor's own handlers put the terminal right before a signal that ends fpx, and follow a change of its size.
    el_set(editor->line, EL_SIGNAL, 1);
    el_set(editor->line, EL_HIST, history, editor->history);
    el_set(editor->line, EL_ADDFN, "fpx-suggest", "Show or complete what may come next", suggest);
    el_set(editor->line, EL_BIND, "\t", "fpx-suggest", NULL);
    el_set(editor->line, EL_BIND, "?", "fpx-suggest", NULL);
    el_set(editor->line, EL_ADDFN, "fpx-interrupt", "Give up this line", interrupt);
    el_set(editor->line, EL_SETTY, "-d", "-isig", NULL);
    el_set(editor->line, EL_BIND, "^C", "fpx-interrupt", NULL);
    el_set(editor->line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    return editor;
}

int fpx_line_editor_history(fpx_line_editor *editor, const char *path, int lines) {
    HistEvent event;
    history(editor->history, &event, H_SETSIZE, lines);
    history(editor->history, &event, H_SETUNIQUE, 1);
    struct stat status;
    if (stat(path, &status) == 0) {
        errno = EINVAL;
        if (!S_ISREG(status.st_mode)) return -1;
        if (status.st_size > 0 && history(editor->history, &event, H_LOAD, path) < 0) return -1;
    } else if (errno != ENOENT) {
        return -1;
    }
    editor->history_path = strdup(path);
    return editor->history_path ? 0 : -1;
}

// libedit writes the file as others may read it and closes that after; the mode is to be right from the start.
static void save_history(fpx_line_editor *editor) {
    HistEvent event;
    mode_t mask = umask(077);
    history(editor->history, &event, H_SAVE, editor->history_path);
    umask(mask);
}

char *fpx_line_editor_read(fpx_line_editor *editor, const char *prompt) {
    editor->prompt = prompt;
    int count = 0;
    editor->interrupted = 0;
    const char *text = el_gets(editor->line, &count);
    editor->prompt = "";
    if (!text || count <= 0) {
        // libedit leaves all sorts of numbers in errno at a plain end of input.
        errno = editor->interrupted ? EINTR : 0;
        return NULL;
    }
    size_t length = (size_t)count;
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r')) length--;
    char *line = strndup(text, length);
    if (line && strspn(line, " \t") < length) {
        HistEvent event;
        history(editor->history, &event, H_ENTER, line);
        if (editor->history_path) save_history(editor);
    }
    return line;
}

void fpx_line_editor_close(fpx_line_editor *editor) {
    if (!editor) return;
    if (editor->line) el_end(editor->line);
    if (editor->history) history_end(editor->history);
    free(editor->history_path);
    free(editor);
}
