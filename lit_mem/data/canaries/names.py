"""Fictitious names of people, from common first and last names."""

from typing import Final

FIRST_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "F": tuple(
        """
        Aaliyah Abena Adriana Agnes Aiko Alejandra Alma Amara Amina Anika Anneliese Anouk Aoife
        Astrid Aurelia Ayse Beatriz Bettina Bianca Birgit Bronwyn Camille Carmela Catalina Celeste
        Chiara Chloe Clara Constance Dagmar Daria Deborah Delphine Dolores Dorothy Edith Eilidh
        Elena Elif Eloise Emiko Esther Eugenia Fatima Farah Fiona Florence Francesca Freya Gabriela
        Galina Georgia Giulia Greta Gwendolyn Hanna Harriet Helena Hilde Hye-jin Ifeoma Ilse Imogen
        Ingrid Irina Isabel Iwona Jacinta Janina Jasmine Johanna Josefina Judith Kamala Karin
        Katarzyna Keiko Khadija Kirsten Lakshmi Larissa Leila Leonor Linnea Lucia Ludmila Mairead
        Malika Margit Mariam Marisol Matilda Meera Mei-ling Mercedes Milena Miriam Nadia Naomi
        Nerea Ngozi Nicolette Noor Olga Ophelia Paloma Petra Philippa Priya Ramona Rebecca Renata
        Rosalind Roxana Sabine Saoirse Shirin Sigrid Simone Sofia Svetlana Tamara Teresa Thandiwe
        Ulrike Ursula Valentina Veronica Wilhelmina Ximena Yasmin Yolanda Yuki Zainab Zofia
        """.split()
    ),
    "M": tuple(
        """
        Aaron Abdul Adebayo Adrian Ahmed Akira Alasdair Alberto Alexei Alonso Amadou Anders Andrei
        Angus Anselm Antonio Arjun Arturo Axel Baptiste Bartosz Benedict Bernardo Bilal Bogdan
        Boris Callum Carlos Cedric Chidi Clement Conrad Cormac Damian Dariusz Declan Desmond Dieter
        Dmitri Domenico Duncan Edgar Eduardo Emeka Emil Enrique Erik Ernesto Esteban Etienne Fabian
        Farid Felix Fergus Fernando Florian Gareth Gaspard Gerald Giovanni Goran Gregor Guillermo
        Gunnar Hamza Harold Hassan Hector Hendrik Hiroshi Hugo Ibrahim Ignacio Igor Ismail Ivan
        Jakub Jamal Javier Jerome Joaquin Jorge Julian Kareem Kazimir Kenji Kieran Klaus Kofi Kwame
        Laszlo Leandro Leopold Lorenzo Lucas Magnus Malcolm Manuel Marcel Mario Mateo Matthias
        Maxim Mehmet Miguel Mikhail Milan Mohan Mustafa Nathaniel Nikolai Olaf Omar Oscar Osvaldo
        Otto Pablo Pascal Patrick Pedro Philip Pietro Rafael Rajesh Ramon Raymond Reinhard Ricardo
        Roland Rupert Salvador Samuel Sanjay Sebastian Sergei Stefan Sunil Tadeusz Takeshi Tariq
        Theodore Thomas Tomas Umberto Viktor Vincent Walter Wojciech Xavier Yusuf Zoltan
        """.split()
    ),
}

LAST_NAMES: Final = tuple(
    """
    Abara Abbott Abdullah Acheson Acosta Adeyemi Agarwal Aguilar Ahlberg Akhtar Albrecht Almeida
    Amundsen Andersson Antonov Appiah Aranda Arslan Asante Ashworth Avraham Baptista Barclay
    Barrientos Bauer Beaumont Becker Benitez Bergstrom Bhatt Bianchi Blackwood Blanchard Boateng
    Bogdanov Bondarenko Borges Bouchard Brandt Brennan Bruckner Buchanan Bukowski Caballero Calder
    Camacho Cardoso Carmichael Castellano Cavanagh Cervantes Chaudhry Cheng Chevalier Cisneros
    Colombo Contreras Cordero Costello Cunningham Czarnecki Dahl Danso Davenport Delacroix Delgado
    Demir Deshmukh Diallo Dimitrov Dlamini Dombrowski Donovan Drummond Dubois Duarte Dvorak
    Eberhardt Echeverria Edwards Egwu Ekstrom Eriksen Escobar Espinoza Fairbanks Falk Farouk
    Faulkner Ferrari Figueroa Fischer Fitzgerald Fleming Fontaine Forsberg Fournier Fraser Friedrich
    Fujimoto Gallagher Galvan Garnier Gebhardt Georgiou Ghosh Gilchrist Goldstein Gonzaga Gorski
    Granger Greco Gruber Guerrero Gunawardena Gupta Gustafsson Haddad Hakimi Halvorsen Hammond
    Hartmann Hashemi Hawthorne Hernandez Herzog Hidalgo Hoffmann Holloway Horvath Hossain Huang
    Ibanez Ibekwe Ilves Ingram Iqbal Ishikawa Ivanova Jablonski Jankowski Jensen Jimenez Johansson
    Kaczmarek Kamara Kapoor Karlsson Katz Kaufmann Kavanagh Keller Khalil Khumalo Kimura Kobayashi
    Kovacs Kowalski Kozlov Kruger Kumar Kuznetsov Lafferty Larsen Lavigne Lebedev Leclerc Lindqvist
    Lombardi Lovelace Lungu Macdonald Machado Magnusson Mahlangu Malhotra Mancini Marchetti Markovic
    Martel Matsuda Mazur Mbeki McAllister McGrath Medina Mendoza Mensah Meyer Mihailov Mitchell
    Molina Montague Moreau Moretti Mukherjee Murakami Mutua Nakamura Navarro Ndiaye Neumann Nguyen
    Nielsen Nkosi Novak Nwosu O'Brien O'Leary Obermeyer Ochoa Odhiambo Okafor Olofsson Onyango
    Ortega Ostrowski Osei Otieno Owusu Pacheco Papadakis Park Patel Pavlov Pellegrini Pereira
    Petersen Pettersson Phillips Pires Popescu Prescott Quintana Quispe Rahman Ramaswamy Rasmussen
    Reinhardt Ribeiro Richter Rinaldi Rojas Romano Rosenberg Rossi Rousseau Rutkowski Saavedra
    Sadowski Saito Salazar Sandoval Santoro Schneider Schroeder Sepulveda Shapiro Sharma Shevchenko
    Silva Simonsen Sinclair Sokolov Solberg Somerville Sorensen Soto Stavros Steiner Stewart
    Sundaram Suzuki Szabo Takahashi Tanaka Teixeira Thapa Thorne Tkachenko Toledo Torvald Tremblay
    Tshabalala Ueda Uribe Valdez Vandenberg Vargas Vasquez Vega Villanueva Vogel Volkov Wagner
    Wallace Wanjiru Watanabe Weiss Whitaker Wielgosz Winther Wozniak Yamamoto Yilmaz Yoon Zaman
    Zapata Zhang Zielinski Zimmermann
    """.split()
)
