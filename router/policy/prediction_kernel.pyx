# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The prediction for one question in compiled code.

The module is optional: without it, `router.policy.prediction` computes the same with NumPy, at many times the cost.
`tests/test_prediction_kernel.py` compares both.
"""

import secrets

from libc.math cimport exp, log, log1p, sqrt
from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    const void* PyUnicode_DATA(object text)
    Py_UCS4 PyUnicode_READ(int kind, const void* data, Py_ssize_t at)

cdef enum Kind:
    OTHER  # a character that is a word of its own
    LETTER
    DIGIT
    SPACE
    UNDERSCORE

cdef Py_ssize_t FEATURES = 15  # in the order of `router.policy.inputs.NUMBER_NAMES`


cdef struct Term:
    uint64_t hash
    int32_t row  # of the table of weights; -1 if the term is unknown
    int32_t count


cdef struct Terms:  # the distinct terms of a text, in the order in which they occur
    Term* terms
    double* weights
    Py_ssize_t count
    int32_t* places  # open addressing: 1 + the number of a term; 0 is free
    uint64_t mask


cdef struct Text:
    int kind
    const void* data
    Py_ssize_t length


cdef inline Text view(str text):
    return Text(PyUnicode_KIND(text), PyUnicode_DATA(text), len(text))


cdef inline Py_UCS4 character(Text* text, Py_ssize_t at) noexcept:
    """The character at a position; 0 behind the end."""
    return PyUnicode_READ(text.kind, text.data, at) if at < text.length else 0


cdef inline bint is_letter(Py_UCS4 code) noexcept:
    """Whether a character is an ASCII letter."""
    return c"a" <= code <= c"z" or c"A" <= code <= c"Z"


# The functions for all characters are slower.
cdef inline bint is_digit(Py_UCS4 code) noexcept:
    return c"0" <= code <= c"9" if code < 128 else code.isdigit()


cdef inline bint is_decimal(Py_UCS4 code) noexcept:
    return c"0" <= code <= c"9" if code < 128 else code.isdecimal()


cdef inline bint is_space(Py_UCS4 code) noexcept:
    return code == c" " or 9 <= code <= 13 or 28 <= code <= 31 if code < 128 else code.isspace()


cdef inline Kind kind_of(Py_UCS4 code) noexcept:
    if is_letter(code):
        return LETTER
    if is_space(code):
        return SPACE
    if is_digit(code):
        return DIGIT
    if code < 128:
        return UNDERSCORE if code == c"_" else OTHER
    return LETTER if code.isalnum() else OTHER


# FNV-1a (Fowler, Noll, Vo), 64 bits, of characters instead of bytes. The start is secret, so that no client can write a
# text whose terms all have the same place, which would take twenty times as long.
cdef uint64_t HASH_START = secrets.randbits(64)


cdef inline uint64_t extend(uint64_t value, Py_UCS4 code) noexcept:
    return (value ^ <uint64_t>code) * <uint64_t>1099511628211U


cdef uint64_t hash_word(uint64_t value, Text* text, Py_ssize_t start, Py_ssize_t end) noexcept:
    """Extend a hash by a word, with each digit as 0."""
    cdef Py_ssize_t at
    cdef Py_UCS4 code
    for at in range(start, end):
        code = character(text, at)
        value = extend(value, <Py_UCS4>48 if is_digit(code) else code)
    return value


cdef inline uint64_t place_of(uint64_t value, uint64_t mask) noexcept:
    return (value ^ (value >> 32)) & mask


cdef bint allocate(Terms* found, Py_ssize_t characters) noexcept:
    """Make room for the terms of a text, at most a word and a pair for each character; False without memory."""
    cdef Py_ssize_t most = 2 * characters + 1
    cdef uint64_t size = 16
    while size < 2 * <uint64_t>most:
        size *= 2
    found.count, found.mask = 0, size - 1
    found.terms = <Term*>malloc(most * sizeof(Term))
    found.weights = <double*>malloc(most * sizeof(double))
    found.places = <int32_t*>calloc(size, sizeof(int32_t))
    return found.terms != NULL and found.weights != NULL and found.places != NULL


cdef void release(Terms* found) noexcept:
    free(found.terms)
    free(found.weights)
    free(found.places)


cdef Py_ssize_t find(Terms* found, uint64_t value, uint64_t* place) noexcept:
    """The number of a term, or -1; `place` becomes its place, or the free one where it belongs."""
    cdef uint64_t at = place_of(value, found.mask)
    while found.places[at]:
        if found.terms[found.places[at] - 1].hash == value:
            break
        at = (at + 1) & found.mask
    place[0] = at
    return found.places[at] - 1


cdef void count_term(Terms* found, uint64_t value) noexcept:
    cdef uint64_t place
    cdef Py_ssize_t number = find(found, value, &place)
    if number < 0:
        number = found.count
        found.terms[number].hash, found.terms[number].count = value, 0
        found.count += 1
        found.places[place] = <int32_t>found.count
    found.terms[number].count += 1


cdef fill(Terms* found, terms):
    """Number the terms in their order."""
    if not allocate(found, len(terms)):
        raise MemoryError
    cdef uint64_t place
    cdef Text text
    for number, term in enumerate(terms):
        text = view(term)
        found.terms[number].hash = hash_word(HASH_START, &text, 0, text.length)
        find(found, found.terms[number].hash, &place)
        found.places[place] = number + 1


cdef Py_ssize_t word_end(Text* text, Py_ssize_t start) noexcept:
    """The end of the word that starts at `start`, as in `router.policy.inputs.words`."""
    cdef Py_ssize_t end = start + 1
    cdef Kind kind = kind_of(character(text, start))
    if kind == OTHER:
        return end
    while end < text.length and kind_of(character(text, end)) == kind:
        end += 1
    if kind == LETTER:
        if character(text, end) == c"'" and c"a" <= character(text, end + 1) <= c"z":
            end += 2
            while c"a" <= character(text, end) <= c"z":
                end += 1
        return end
    while is_separator(character(text, end)) and kind_of(character(text, end + 1)) == DIGIT:
        end += 2
        while end < text.length and kind_of(character(text, end)) == DIGIT:
            end += 1
    return end


cdef inline bint is_separator(Py_UCS4 code) noexcept:
    return code == c"." or code == c","


cdef Py_ssize_t number_end(Text* text, Py_ssize_t start) noexcept:
    """The end of the number that starts at `start`. Superscripts are digits of words, but not of numbers."""
    cdef Py_ssize_t end = start + 1
    while is_decimal(character(text, end)) or (
        is_separator(character(text, end)) and is_decimal(character(text, end + 1))
    ):
        end += 1
    return end


cdef inline bint is_option_letter(Py_UCS4 code) noexcept:
    return c"A" <= code <= c"J" or c"a" <= code <= c"j"


cdef Py_ssize_t option_length(Text* text, Py_ssize_t at) noexcept:
    """The length of the mark of an option at `at`, such as "B) " on a new line or "(b)"; 0 if there is none."""
    cdef Py_ssize_t letter = at + (character(text, at) == c"(")
    if not is_option_letter(character(text, letter)):
        return 0
    cdef Py_UCS4 after = character(text, letter + 1)
    if (at == 0 or character(text, at - 1) == c"\n") and character(text, letter + 2) == c" " and (
        after == c")" or after == c"." or after == c":"
    ):
        return letter + 3 - at
    return 3 if letter > at and after == c")" else 0


cdef void read_features(Text* text, double* features) noexcept:
    """The hand features of a text without those of its tools, as in `router.policy.inputs.hand_features`."""
    cdef Py_ssize_t words = 0, foreign = 0, numbers = 0, decimals = 0, operators = 0, latex = 0, code = 0, options = 0
    cdef Py_ssize_t questions = 0, quotes = 0, newlines = 0, at, after_number = 0, after_decimal = 0, after_option = 0
    cdef Py_ssize_t after_colons = 0
    cdef Py_UCS4 c, following
    cdef bint in_word = False
    for at in range(text.length):
        c = character(text, at)
        foreign += c > 127
        if is_space(c):
            in_word = False
            newlines += c == c"\n"
            continue
        words += not in_word
        in_word = True
        if at >= after_option and (c == c"(" or is_option_letter(c)):
            after_option = at + option_length(text, at)
            options += after_option > at
        if is_letter(c):
            continue
        following = character(text, at + 1)
        if is_decimal(c):
            if at >= after_number:
                numbers += 1
                after_number = number_end(text, at)
            if at >= after_decimal and following == c"." and is_decimal(character(text, at + 2)):
                decimals += 1
                after_decimal = at + 3
        if c == c":" and following == c":" and at >= after_colons:
            code += 1
            after_colons = at + 2
        latex += c == c"$" or (c == c"\\" and is_letter(following))
        questions += c == c"?"
        quotes += c == c'"' or c == c"'" or c == c"`"
        operators += c == c"+" or c == c"*" or c == c"/" or c == c"=" or c == c"<" or c == c">" or c == c"^" or c == c"%"
        code += c == c"{" or c == c"}" or c == c"(" or c == c")" or c == c";" or c == c"[" or c == c"]" or c == c"_"
        code += (c == c"-" or c == c"=") and following == c">"
    features[0], features[1] = log1p(<double>text.length), log1p(<double>words)
    features[2], features[3] = text.length / (words + 1.0), foreign / (text.length + 1.0)
    features[4], features[5], features[6] = log1p(<double>numbers), log1p(<double>decimals), log1p(<double>operators)
    features[7], features[8], features[9] = log1p(<double>latex), log1p(<double>code), log1p(<double>options)
    features[10], features[11] = log1p(<double>questions), log1p(<double>quotes)
    features[12] = log1p(<double>newlines)


cdef class PredictionKernel:
    """The weights of a predictor of M models and T question types: H = 2 M + T heads, V terms, 15 hand features."""

    cdef tuple _arguments, _model_names, _type_names
    cdef Terms _vocabulary  # the number of a term is its row in the table
    cdef Terms _ignored
    cdef const double[::1] _idf, _number_mean, _number_scale, _intercept, _smearing, _type_familiarity, _quantiles
    cdef const double[:, ::1] _number_weights, _type_table
    cdef const float[:, ::1] _table
    cdef double _sharpness, _number_limit, _material_weight, _most_tokens
    cdef Py_ssize_t _number_characters, _models, _types, _heads

    def __cinit__(
        self, tuple models, tuple types, terms, ignored, idf, table, number_mean, number_scale, number_weights, intercept,
        type_table, smearing, type_familiarity, familiarity_quantiles, double sharpness, double number_limit,
        double material_weight, double most_tokens, Py_ssize_t number_characters,
    ):
        """The arguments are described in `prediction_kernel.pyi`.

        Raises:
            ValueError: the shapes of the weights do not agree.
        """
        self._arguments = (  # for pickling
            models, types, terms, ignored, idf, table, number_mean, number_scale, number_weights, intercept,
            type_table, smearing, type_familiarity, familiarity_quantiles, sharpness, number_limit,
            material_weight, most_tokens, number_characters,
        )
        self._model_names, self._type_names, self._models, self._types = models, types, len(models), len(types)
        self._type_familiarity, self._quantiles = type_familiarity, familiarity_quantiles
        self._idf, self._table, self._number_mean, self._number_scale = idf, table, number_mean, number_scale
        self._number_weights, self._intercept, self._type_table = number_weights, intercept, type_table
        self._smearing, self._sharpness, self._number_limit = smearing, sharpness, number_limit
        self._material_weight, self._most_tokens, self._number_characters = (
            material_weight, most_tokens, number_characters
        )
        self._heads = 2 * self._models + self._types
        shapes = (
            (self._table.shape[0], len(terms)),
            (self._table.shape[1], self._heads),
            (self._intercept.shape[0], self._heads),
            (self._idf.shape[0], len(terms) + 1),
            (self._number_mean.shape[0], FEATURES),
            (self._number_scale.shape[0], FEATURES),
            (self._number_weights.shape[0], FEATURES),
            (self._number_weights.shape[1], self._heads),
            (self._smearing.shape[0], self._models),
            (self._type_familiarity.shape[0], self._types),
            (self._type_table.shape[0], self._types),
            (self._type_table.shape[1], 3 * self._models + 2 + 2 * self._models * FEATURES),
        )
        if not self._models or not self._types or any(found != wanted for found, wanted in shapes):
            raise ValueError("the shapes of the weights do not agree")
        fill(&self._vocabulary, terms)
        fill(&self._ignored, ignored)

    def __dealloc__(self):
        release(&self._vocabulary)
        release(&self._ignored)

    def __reduce__(self):
        return PredictionKernel, self._arguments

    def predict(self, str question, str material, double tools, double tool_share):
        """Predict for a question. The arguments and the result are described in `prediction_kernel.pyi`."""
        cdef str words = question.lower(), material_words = material.lower()
        cdef Text text = view(question)
        cdef Terms found, further
        cdef double* buffer = <double*>malloc(
            (FEATURES + self._heads + self._types + self._type_table.shape[1]) * sizeof(double)
        )
        further.terms, further.weights, further.places = NULL, NULL, NULL
        try:
            # The terms of the material are added to those of the question, so there is room for both.
            if not allocate(&found, len(words) + len(material_words)) or buffer == NULL:
                raise MemoryError
            if material and not allocate(&further, len(material_words)):
                raise MemoryError
            known = self._weigh(&found, view(words))
            if material:
                self._weigh(&further, view(material_words))
                self._add_material(&found, &further)
            read_features(&text, buffer)
            buffer[FEATURES - 2], buffer[FEATURES - 1] = log1p(tools), tool_share
            return self._predict(&found, known, buffer)
        finally:
            release(&found)
            release(&further)
            free(buffer)

    cdef double _weigh(self, Terms* found, Text text) noexcept:
        """Weigh the terms of a text, unknown ones by 0, as `weigh_counts` does; the share of known words."""
        cdef Py_ssize_t number, row, unknown = self._idf.shape[0] - 1
        cdef uint64_t place
        cdef double mass = 0.0, total = 0.0, weight
        self._count_terms(found, &text)
        for number in range(found.count):
            row = find(&self._vocabulary, found.terms[number].hash, &place)
            weight = (1.0 + log(<double>found.terms[number].count)) * self._idf[unknown if row < 0 else row]
            total += weight * weight
            found.terms[number].row = <int32_t>row
            found.weights[number] = 0.0 if row < 0 else weight
            mass += found.weights[number] * found.weights[number]
        if mass == 0.0:
            return 0.0
        for number in range(found.count):
            found.weights[number] /= sqrt(mass)
        return sqrt(mass / total)

    cdef void _count_terms(self, Terms* found, Text* text) noexcept:
        """Count the words of a text and its pairs of adjacent words, as `router.policy.inputs.terms` lists them."""
        cdef Py_ssize_t start = 0, end, hashed
        cdef uint64_t word, before = 0, place
        cdef bint has_word_before = False
        cdef Kind kind
        while start < text.length:
            kind = kind_of(character(text, start))
            if kind == SPACE or kind == UNDERSCORE:
                start += 1
                continue
            end = word_end(text, start)
            hashed = min(end, start + self._number_characters) if kind == DIGIT else end
            word = hash_word(HASH_START, text, start, hashed)
            if find(&self._ignored, word, &place) < 0:
                count_term(found, word)
                if has_word_before:
                    count_term(found, hash_word(extend(before, c" "), text, start, hashed))
                before, has_word_before = word, True
            start = end

    cdef void _add_material(self, Terms* found, Terms* material) noexcept:
        """Add the known terms of the material to those of the question, as `add_material` does."""
        cdef Py_ssize_t at, number
        cdef uint64_t place
        cdef double mass = 0.0
        for at in range(material.count):
            if material.terms[at].row < 0:
                continue
            number = find(found, material.terms[at].hash, &place)
            if number < 0:
                number = found.count
                found.terms[number], found.weights[number] = material.terms[at], 0.0
                found.count += 1
                found.places[place] = <int32_t>found.count
            found.weights[number] += self._material_weight * material.weights[at]
        for number in range(found.count):
            mass += found.weights[number] * found.weights[number]
        if mass > 0.0:
            for number in range(found.count):
                found.weights[number] /= sqrt(mass)

    cdef void _add_heads(self, Terms* found, double* numbers, double* heads) noexcept:
        """Standardise the hand features, and sum the weights of all inputs into the heads."""
        cdef Py_ssize_t at, head
        cdef double value
        cdef const float* row
        for head in range(self._heads):
            heads[head] = self._intercept[head]
        for at in range(FEATURES):
            value = (numbers[at] - self._number_mean[at]) / self._number_scale[at]
            value = min(max(value, -self._number_limit), self._number_limit)
            numbers[at] = value
            for head in range(self._heads):
                heads[head] += value * self._number_weights[at, head]
        for at in range(found.count):
            value = found.weights[at]
            if value == 0.0:
                continue
            row = &self._table[found.terms[at].row, 0]
            for head in range(self._heads):
                heads[head] += value * row[head]

    cdef _predict(self, Terms* found, double known, double* numbers):
        """The result of `predict`. The buffer after the hand features has room for all sums."""
        cdef double* heads = numbers + FEATURES
        cdef double* likely = heads + self._heads
        cdef double* sums = likely + self._types  # (3 M + 2 + 2 M FEATURES,) over the possible types
        cdef double* slopes = sums + 3 * self._models + 2  # (2 M, FEATURES)
        cdef double* scores = heads + 2 * self._models  # of the types
        cdef Py_ssize_t models = self._models, columns = self._type_table.shape[1], at, column, best = 0
        cdef double total, measured, value, gap
        self._add_heads(found, numbers, heads)
        for at in range(1, self._types):
            if scores[at] > scores[best]:
                best = at
        for column in range(columns):
            sums[column] = 0.0
        for at in range(self._types):
            likely[at] = exp(self._sharpness * (scores[at] - scores[best]))
            for column in range(columns):
                sums[column] += likely[at] * self._type_table[at, column]
        total, measured = sums[3 * models + 1], sums[3 * models] / sums[3 * models + 1]
        for column in range(2 * models):  # the offset from the mean of the type
            value = 0.0
            for at in range(FEATURES):
                value += slopes[column * FEATURES + at] * numbers[at]
            heads[column] += value / total
        quality, output_tokens, doubt, probabilities = {}, {}, {}, {}
        for at in range(models):
            name = self._model_names[at]
            quality[name] = min(max(sums[at] / total + measured * heads[at], 0.0), 1.0)
            value = sums[models + at] / total + measured * heads[models + at]
            value = exp(min(value, log(self._most_tokens))) * self._smearing[at]
            output_tokens[name] = min(max(value, 1.0), self._most_tokens)
            gap = (sums[models - 1] - sums[at]) / total
            doubt[name] = sqrt(max(sums[2 * models + at] / total - gap * gap, 0.0))
        for at in range(self._types):
            probabilities[self._type_names[at]] = likely[at] / total
        value = scores[best] * known - self._type_familiarity[best]
        return (
            self._type_names[best], probabilities, quality, output_tokens, doubt, value,
            1.0 - self._share_below(value),
        )

    cdef double _share_below(self, double familiarity) noexcept:
        """The share of the calibration's questions that are less familiar."""
        cdef Py_ssize_t low = 0, high = self._quantiles.shape[0], middle
        while low < high:
            middle = (low + high) // 2
            if self._quantiles[middle] < familiarity:
                low = middle + 1
            else:
                high = middle
        return <double>low / self._quantiles.shape[0]
