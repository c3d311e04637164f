/* Times in which no garbage is collected. A part of `wire.h`.
 *
 * A collection runs finalizers of the service, and these may block. In the middle of a value that would let another
 * greenlet go on with the same input or the same output: a call would run twice, or a reply be lost. Up to CPython 3.11
 * each new container and each exception may begin a collection; later ones collect only between two instructions of
 * Python code.
 */
#if PY_VERSION_HEX >= 0x030C0000

static inline int quiet_begin(void) { return 0; }
static inline void quiet_end(int was_enabled) { (void)was_enabled; }

#elif PY_VERSION_HEX >= 0x030A0000

static inline int quiet_begin(void) { return PyGC_Disable(); }
static inline void quiet_end(int was_enabled)
{
    if (was_enabled)
        PyGC_Enable();
}

#else

/* Call a function of the module gc. Returns whether it has answered True. */
static int quiet_call(const char *name)
{
    static PyObject *module;
    if (!module)
        module = PyImport_ImportModule("gc");
    PyObject *answer = module ? PyObject_CallMethod(module, name, NULL) : NULL;
    int is_true = answer == Py_True;
    if (!answer)
        PyErr_Clear();
    Py_XDECREF(answer);
    return is_true;
}

static inline int quiet_begin(void)
{
    int was_enabled = quiet_call("isenabled");
    if (was_enabled)
        quiet_call("disable");
    return was_enabled;
}
static inline void quiet_end(int was_enabled)
{
    if (was_enabled)
        quiet_call("enable");
}

#endif
